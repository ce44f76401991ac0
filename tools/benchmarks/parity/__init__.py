"""Every layout against one process: the same losses, the same updated weights."""
