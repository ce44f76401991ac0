"""Sample groups of answers: the sampler process, the rollout store, metrics of samples."""
