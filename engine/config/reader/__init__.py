"""Read configuration files: YAML, overrides, keys, and error messages."""
