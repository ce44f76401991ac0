"""Checkpoint conversion with verification; ``python -m tools.convert --help``."""
