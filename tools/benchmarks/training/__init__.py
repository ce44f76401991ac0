"""Speed, utilisation and memory of whole training steps, lever by lever."""
