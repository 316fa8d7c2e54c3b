"""nats-server's configuration as Fairlead needs it: what `fairlead nats-config` prints.

Pure: from options to text. The permissions are those of `protocol.permissions`, so that an upgrade
that adds a NATS subject adds the permission, too: print it anew with each version.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fairlead.protocol.permissions import OPERATOR, Permissions, Role, permissions
from fairlead.protocol.subjects import Subjects

MAX_PAYLOAD = 2 * 1024 * 1024
"""Bytes: a message of 1 MiB with its headers, and room to spare."""


class Tls(NamedTuple):
    """Paths, as nats-server sees them."""

    cert: str
    key: str
    ca: str


class Cluster(NamedTuple):
    """The servers of one cluster: its name, and the host names of all of them."""

    name: str
    hosts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Options:
    """What differs from one installation to another.

    Attributes:
        app: whose subjects are allowed.
        store: the folder of JetStream's files.
        file_store: bytes that they may take, as nats-server writes sizes ("10GB").
        auth: whether each role is a user of its own; without it whoever reaches the port may all.
        tls, cluster: None for none.
        broker_spans: percent of the sampled messages of which nats-server tells; 0 for none.
    """

    app: str = "default"
    store: str = "/data"
    file_store: str = ""
    auth: bool = False
    tls: Tls | None = None
    cluster: Cluster | None = None
    broker_spans: int = 0


def variable(role: Role) -> str:
    """Where nats-server's environment has the public nkey of a role."""
    return f"NATS_NKEY_{role.upper()}"


OPERATORS = "NATS_NKEY_OPERATOR"
"""Likewise, of the operator's own user in the app's account."""

SYSTEM = "NATS_NKEY_SYSTEM"
"""Likewise, of the one in the system account."""


def config(options: Options) -> str:
    """A whole configuration, with the reason for each figure."""
    parts = [_HEAD.format(command=command(options)), _server(options), _jetstream(options), _LIMITS]
    if options.tls is not None:
        parts.append(_tls(options.tls))
    if options.cluster is not None:
        parts.append(_cluster(options.cluster, options.tls))
    if options.auth or options.broker_spans:
        parts.append(_accounts(options))
    return "\n".join(parts)


def command(options: Options) -> str:
    """The command that prints a configuration with these options."""
    words = ["fairlead nats-config"]
    if options.app != "default":
        words.append(f"--app {options.app}")
    words.append(f"--auth {'nkeys' if options.auth else 'none'}")
    if options.cluster is not None:
        words.append(f"--cluster {options.cluster.name}@{','.join(options.cluster.hosts)}")
    if options.tls is not None:
        words.append(f"--tls {','.join(options.tls)}")
    if options.store != "/data":
        words.append(f"--store {options.store}")
    if options.file_store:
        words.append(f"--file-store {options.file_store}")
    if options.broker_spans:
        words.append(f"--broker-spans {options.broker_spans}")
    return " ".join(words)


_HEAD = """\
# nats-server for Fairlead. Made by
#   {command}
# so make it anew after an upgrade rather than mend it. Sizes are bytes, written out: the server reads
# 2MB as 2097152, others as 2000000. Check a change with: nats-server -t -c FILE
"""


def _server(options: Options) -> str:
    named = (
        "server_name: $SERVER_NAME  # in a cluster each has its own\n" if options.cluster else ""
    )
    return f"""\
port: 4222
{named}
# /healthz and /jsz, for health checks and monitoring. No password: never publish it.
http_port: 8222
"""


def _jetstream(options: Options) -> str:
    limit = ""
    if options.file_store:
        limit = f"""
  # What the volume holds: full, it refuses messages, and says so to who publishes.
  max_file_store: {options.file_store}"""
    return f"""\
jetstream {{
  # The volume. Rooms' histories, kept runs and the workers' manifests live here.
  store_dir: "{options.store}"{limit}

  # Written to disk after so long at the latest; the default of 2 min trusts the other replicas alone.
  sync_interval: "10s"
}}
"""


_LIMITS = f"""\
# A message is at most 1048576 bytes of user data, and edge and worker refuse to start unless there
# are 65536 more for headers, prefix and base64. 2 MiB is what all shipped configurations set.
max_payload: {MAX_PAYLOAD}

# What the server holds for one connection that reads too slowly, then it disconnects it; Fairlead
# reconnects and makes good. 64 MiB: 32 of the largest messages, or seconds of the busiest room.
max_pending: 67108864

# A peer whose socket takes nothing for this long is cut off. 5 s is also when a worker that stands
# still gives its connection up; the server's own default is 10 s.
write_deadline: "5s"

# A machine that vanished says no goodbye: the server asks each 2 s and gives up at the third ask
# without an answer, so what is sent to its workers waits for 6 to 8 s at most. Edges and workers leave
# a server that does not answer as soon. The default of 2 min takes 6 min.
ping_interval: "2s"
"""


def _tls(tls: Tls, indent: str = "", verify: bool = False) -> str:
    lines = [f'cert_file: "{tls.cert}"', f'key_file: "{tls.key}"', f'ca_file: "{tls.ca}"']
    lines += ["verify: true"] if verify else []
    body = "\n".join(f"{indent}  {line}" for line in lines)
    return f"{indent}tls {{\n{body}\n{indent}}}\n"


def _cluster(cluster: Cluster, tls: Tls | None) -> str:
    routes = "\n".join(f"    {'tls' if tls else 'nats'}://{host}:6222" for host in cluster.hosts)
    # Servers know each other by certificate: whoever has none is no server.
    between = "\n" + _tls(tls, "  ", verify=True) if tls else "\n"
    return f"""\
cluster {{
  name: "{cluster.name}"
  port: 6222
  routes: [
{routes}
  ]
  # Clients are given all names in --nats: addresses that servers tell them lead nowhere through a
  # load balancer, or from another network.
  no_advertise: true{between}}}

# On a rolling update each server tells its clients to go before it does, a few at a time: for 30 s,
# after 10 s in which it hands its streams' leadership over.
lame_duck_grace_period: "10s"
lame_duck_duration: "30s"
"""


def _accounts(options: Options) -> str:
    subjects = Subjects(options.app)
    traced = ""
    if options.broker_spans:
        traced = f"""
    # Tells of each sampled message when it came in and went out: `fairlead edge --broker-spans`.
    msg_trace {{ dest: "{subjects.broker}", sampling: "{options.broker_spans}%" }}"""
    if not options.auth:
        return f"""\
accounts {{
  APP {{
    jetstream: enabled{traced}
    users: [ {{ user: "app", password: "" }} ]
  }}
}}
no_auth_user: "app"
"""
    users = "\n".join(_user(variable(role), permissions(subjects, role)) for role in Role)
    users += "\n" + _user(OPERATORS, OPERATOR)
    return f"""\
# Each role may say and hear what it needs, and nothing else. The public nkeys come from the
# environment of nats-server; `fairlead nats-config --keys DIR` makes them and the seeds.
accounts {{
  SYS {{ users: [ {{ nkey: ${SYSTEM} }} ] }}
  APP {{
{_granted(options)}{traced}
    users: [
{users}
    ]
  }}
}}
system_account: SYS
"""


def _granted(options: Options) -> str:
    """What the account may store. Without a limit nobody but the server would know that it is full."""
    if not options.file_store:
        return "    jetstream: enabled"
    servers = len(options.cluster.hosts) if options.cluster else 1
    number = options.file_store.rstrip(string.ascii_letters)
    unit = options.file_store[len(number) :]
    return f"""\
    # What all servers hold together, each replica counted: `fairlead doctor` and the metric
    # fairlead_jetstream_storage_usage_bytes tell how much of it is taken.
    jetstream {{ max_file: {servers * int(number)}{unit} }}"""


def _user(key: str, allowed: Permissions) -> str:
    """Args: key: where nats-server's environment has the public half."""
    return f"""\
      {{
        nkey: ${key}
        permissions {{
          publish {{ allow: [
{_lines(allowed.publish)}
          ] }}
          subscribe {{ allow: [
{_lines(allowed.subscribe)}
          ] }}
        }}
      }}"""


def _lines(subjects: Sequence[str]) -> str:
    return "\n".join(f'            "{subject}"' for subject in subjects)
