"""Checkpoints: written whole or not at all, read back with their checksums verified."""
