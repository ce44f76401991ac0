"""The paper as programs: each recipe composes the engine into one training run."""
