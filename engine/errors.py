"""The exception whose message is for the user, and the guard around every process's ``main``."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn


class RunError(Exception):
    """A run cannot go on; the message is one clear sentence for the person who started it.

    It names the key, file or process, what was expected and what was found.
    """


def _leave(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Print a :class:`RunError` as ``error: ...`` and exit 1; turn SIGTERM into ``SystemExit``.

    SIGTERM as an exception lets ``finally`` blocks stop child processes and close files. Any other
    exception is printed with its traceback: it is a defect of ours, and the log should show where.
    """
    signal.signal(signal.SIGTERM, _leave)
    _open_standard_streams()
    try:
        yield
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        _exit_at_once()
    except Exception:
        traceback.print_exc()
        _exit_at_once()


def _open_standard_streams() -> None:
    """Let nobody read what is said where this process was started without an output (``>&-``).

    Python has None there, and the next file that is opened gets the number that others write to.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("r+"))  # noqa: SIM115  (for good)


def _exit_at_once() -> NoReturn:
    """Exit with status 1; everything inside ``clear_errors`` has been left and closed.

    Not by SystemExit: finalising an interpreter with torch lasts seconds, in which other
    processes would fail for want of an answer and be named as the cause.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
