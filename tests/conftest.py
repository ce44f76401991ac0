"""Settings that hold for every test."""

from __future__ import annotations

from hypothesis import settings

# A machine that also runs ranks and servers stalls now and then: no time limit per example
# (pytest-timeout still ends a test that hangs).
settings.register_profile("r1-engine", deadline=None)
settings.load_profile("r1-engine")
