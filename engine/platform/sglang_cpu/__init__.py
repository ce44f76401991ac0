"""Run SGLang's unmodified server on a machine without a GPU."""
