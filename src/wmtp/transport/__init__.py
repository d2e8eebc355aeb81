"""Whole checkpoints on the move: fetched into a directory or the cache, pushed into an object store."""
