"""Algorithms of reinforcement learning and next-token training: pure functions of tensors."""
