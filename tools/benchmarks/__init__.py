"""Measurements of the machine's parts, each a program with --help."""
