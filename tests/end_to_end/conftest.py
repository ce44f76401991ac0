"""Fixtures of the end-to-end tests."""

from launched import launch  # noqa: F401  (a fixture)
