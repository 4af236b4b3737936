"""Several processes: ranks, collectives, sharded weights."""
