"""SGLang servers: how they are started, where they compute, and how they are asked."""
