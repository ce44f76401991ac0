"""Tokenize, plan, pack and load what the policy reads: prompts, conversations, minibatches."""
