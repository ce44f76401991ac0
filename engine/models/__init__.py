"""Build megatron-core models from Hugging Face configs, and map their weights both ways."""
