"""The policy: log-probabilities, microbatches, updates, optimizer, precision."""
