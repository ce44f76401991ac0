"""Save and load a run's sharded checkpoints, whole or not at all."""
