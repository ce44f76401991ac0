"""The one exception that speaks to the user, and the guard that every process's ``main`` wears."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class RunError(Exception):
    """A run cannot go on; the message is one clear sentence for the person who started it.

    It names the key, file or party, what was expected and what was found.
    """


def _leave(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Print a :class:`RunError` as ``error: ...`` and exit 1; turn SIGTERM into ``SystemExit``.

    SIGTERM as an exception lets ``finally`` blocks stop child processes and close files. Any other
    exception keeps its traceback: it is a defect of ours, and the log should show where.
    """
    signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    except RunError as error:
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr, flush=True)
        # Everything inside has been left and closed. Not SystemExit: taking an interpreter with
        # torch apart lasts seconds, in which others would die of our silence and take the blame.
        os._exit(1)
