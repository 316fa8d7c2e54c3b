"""What crosses NATS and what clients see, as pure functions: no sockets, clocks or tasks."""
