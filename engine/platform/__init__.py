"""The one room that knows a CUDA device from a CPU."""
