"""Settings that hold for every test."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

# Under nohup or behind & these are ignored, and every process that a test starts would inherit it;
# a handler is not inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, lambda *_: None)

# A machine that also runs ranks and servers stalls now and then: no time limit per example
# (pytest-timeout still ends a test that hangs).
settings.register_profile("r1-engine", deadline=None)
settings.load_profile("r1-engine")


@pytest.fixture(scope="session", autouse=True)
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests, and every process that they start, leave the user's cache alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
