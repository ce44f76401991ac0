"""The mathematics of the recipes: objects and functions of tensors, and nothing else."""
