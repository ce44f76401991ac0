"""Trains, samples, rewards and stores; knows nothing of any particular recipe."""
