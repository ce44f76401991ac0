"""Heads: from hidden states of the last pipeline stage to what a loss is made of."""
