"""What the policy reads: text to tokens, prompts, minibatches, packed rows."""
