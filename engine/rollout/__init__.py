"""Sampling: servers and their client, groups of answers, the rollout store, the sampler process."""
