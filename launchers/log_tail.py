"""Read the end of a process's log, and find the reason for its end there."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

_HEADER = "=== start of "
_READ_BYTES = 64 * 1024  # enough for any tail, however large the log has grown
_EXCEPTION = re.compile(r"[\w.]+(Error|Exception): ")
_LONGEST_LINE = 500  # characters; SGLang prints all its arguments in one line of 15,000


def header(name: str, command: Sequence[str]) -> str:
    """Return the line that opens each start's part of a log, which restarts append to."""
    return f"{_HEADER}{name} at {time.strftime('%Y-%m-%d %H:%M:%S')}: {' '.join(command)}\n"


def tail(log: Path, lines: int = 20) -> list[str]:
    """Return the last ``lines`` lines that the latest start wrote to ``log``; [] without a log.

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
    latest = found[starts[-1] + 1 :] if starts else found
    while latest and not latest[-1]:
        latest.pop()
    return [_shortened(line) for line in latest[-lines:]]


def _shortened(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]} ..."


def last_words(lines: Sequence[str]) -> str | None:
    """Return the reason that a process itself named for its end, if ``lines`` of its log have it.

    The last ``error: ...`` line, as ``engine.errors.clear_errors`` prints it; without one, the last
    line of the last traceback.
    """
    for line in reversed(lines):
        if line.startswith("error: "):
            return line.removeprefix("error: ")
    return next((line for line in reversed(lines) if _EXCEPTION.match(line)), None)
