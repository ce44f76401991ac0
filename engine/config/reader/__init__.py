"""Reading configuration files: YAML, overrides, keys, and the wording of every problem."""
