"""Benchmarks of the engine's parts, each a program with --help."""
