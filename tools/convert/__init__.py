"""Checkpoint conversion that proves itself; ``python -m tools.convert --help``."""
