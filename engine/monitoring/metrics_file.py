"""Write and read metrics.jsonl: one line of JSON per step, continued by a resumed run."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.errors import RunError
from engine.monitoring.metric_names import STEP
from engine.platform.closing import Closing
from engine.platform.files import open_to_append, replace_bytes, writing

METRICS_FILE = "metrics.jsonl"
"""In a run's folder."""


class MetricsFile(Closing):
    """Appends lines, and forgets those of steps that are about to be done again.

    Invariants, asserted by tests of their names:
    - a run that goes on at step k keeps every line below k as it was and none from k on
    - steps increase strictly from line to line, whatever was killed and started again
    - a line is on disk before append returns
    """

    def __init__(self, path: Path, first_step: int) -> None:
        """Drop the lines from ``first_step`` on and open the file at its end.

        The file is replaced by rename, so that a kill in here loses nothing either.

        Raises:
            RunError: the file is damaged in its middle, or cannot be written.
        """
        kept = [line for line, content in _parsed(path) if content[STEP] < first_step]
        replace_bytes(path, b"".join(kept))
        self._path = path
        self._last_step = first_step - 1
        with writing(path):
            self._file = open_to_append(path)

    def append(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write and sync the line of ``step``; JSON has no NaN, so what is not finite becomes null.

        Raises:
            ValueError: ``step`` does not come after the last one.
            RunError: the disk is full.
        """
        if step <= self._last_step:
            raise ValueError(f"step {step} comes after step {self._last_step}")
        finite = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
        line = json.dumps({STEP: step, **finite}, allow_nan=False) + "\n"
        with writing(self._path):
            self._file.write(line.encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        self._last_step = step

    def close(self) -> None:
        """Close the file."""
        # Something is pending only after an append that failed and was reported.
        with suppress(OSError):
            self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics.jsonl, without a last one that a crash cut short.

    Raises:
        RunError: another line than the last is not a JSON object with a step.
    """
    return [content for _, content in _parsed(path)]


def _parsed(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """Return each whole line with its newline, and what it says."""
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    return [(line, _content(line, f"line {n} of {path}")) for n, line in enumerate(lines, start=1)]


def _content(line: bytes, where: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError:
        content = None
    if not isinstance(content, dict) or not isinstance(content.get(STEP), int):
        found = line[:60].decode(errors="replace").strip()
        raise RunError(
            f"{where} is damaged: expected a JSON object with a step, found {found!r}; take the "
            "line out, or move the file away"
        )
    return content
