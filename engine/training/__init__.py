"""Train a model: microbatches, heads, updates, optimizer, the frozen reference."""
