"""Model families: what a Hugging Face ``config.json`` means to megatron-core, and back."""
