"""Sharded checkpoints of a run: saved whole or not at all, loaded where the run left off."""
