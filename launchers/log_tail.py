"""Read the end of a process's log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

_HEADER = "=== start of "
_READ_BYTES = 256 * 1024  # with any traceback, however large the log has grown
_LONGEST_LINE = 500  # characters; SGLang prints all its arguments in one line of 15,000


def header(name: str, command: Sequence[str]) -> str:
    """Return the line that opens each start's part of a log, which restarts append to."""
    return f"{_HEADER}{name} at {time.strftime('%Y-%m-%d %H:%M:%S')}: {' '.join(command)}\n"


def latest(log: Path) -> list[str]:
    """Return the lines that the latest start wrote to ``log``, of a long log the last; [] without.

    Of a line that a progress bar has overwritten with carriage returns only the last state counts.
    """
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _READ_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    found = [line.rstrip().rsplit("\r", 1)[-1] for line in text.split("\n")]
    starts = [index for index, line in enumerate(found) if line.startswith(_HEADER)]
    lines = found[starts[-1] + 1 :] if starts else found
    while lines and not lines[-1]:
        lines.pop()
    return [_shortened(line) for line in lines]


def tail(log: Path, lines: int = 20) -> list[str]:
    """Return the last ``lines`` of :func:`latest`."""
    return latest(log)[-lines:]


def _shortened(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]} ..."
