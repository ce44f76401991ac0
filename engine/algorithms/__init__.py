"""The mathematics of the recipes: pure functions of tensors."""
