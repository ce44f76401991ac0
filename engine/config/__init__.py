"""Sections of a run's configuration (pydantic models), and the code that reads and writes them."""
