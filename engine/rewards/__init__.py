"""Rewards: rules that judge answers, and processes that can be killed to run them in."""
