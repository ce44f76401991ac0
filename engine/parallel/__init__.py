"""Process groups of a layout, coordinates of its ranks, slices of context-parallel rows."""
