"""Compare losses and updated weights of every layout with those of one process."""
