"""`fairlead dev`: the whole system on one machine, under one supervisor."""
