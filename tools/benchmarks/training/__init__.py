"""Benchmark of whole training steps: speed, utilisation and memory, option by option."""
