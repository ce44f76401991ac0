"""Settings that hold for every test."""

from __future__ import annotations

import signal

from hypothesis import settings

# Under nohup or behind & these are ignored, and every process that a test starts would inherit it;
# a handler is not inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, lambda *_: None)

# A machine that also runs ranks and servers stalls now and then: no time limit per example
# (pytest-timeout still ends a test that hangs).
settings.register_profile("r1-engine", deadline=None)
settings.load_profile("r1-engine")
