"""Heads: what hidden states of the last pipeline stage become."""
