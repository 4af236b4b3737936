"""Distributed training: ranks, collectives and sharded weights."""
