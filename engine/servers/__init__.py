"""SGLang servers: command lines, placement and HTTP client."""
