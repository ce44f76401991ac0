"""A TensorBoard event file, written in the thread that records.

torch's SummaryWriter hands events to a thread of its own: on a full disk that thread prints a
traceback over the one sentence that the user should read, and nothing is ever synced.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from engine.platform.files import writing


class EventFile:
    """One file of a ``tensorboard/`` folder; every process that records opens its own."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Open a file that takes the place of everything earlier files hold from ``first_step`` on.

        Raises:
            RunError: the folder cannot be written.
        """
        # TensorBoard reads the files of a folder in the order of their names.
        name = f"events.out.tfevents.{time.time():.6f}.{platform.node()}.{os.getpid()}"
        self._path = folder / name
        with writing(self._path):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("xb")
        self._records = RecordWriter(self._file)
        start = SessionLog(status=SessionLog.START)
        self._write(
            [
                Event(wall_time=time.time(), file_version="brain.Event:2"),
                Event(wall_time=time.time(), step=first_step, session_log=start),
            ]
        )

    def add(self, summaries: Iterable[Summary], step: int) -> None:
        """Write and sync what belongs to one step.

        Raises:
            RunError: the disk is full.
        """
        now = time.time()
        self._write([Event(wall_time=now, step=step, summary=summary) for summary in summaries])

    def _write(self, events: list[Event]) -> None:
        with writing(self._path):
            for event in events:
                self._records.write(event.SerializeToString())
            self._records.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        # Something is pending only after a write that failed and was reported.
        with suppress(OSError):
            self._records.close()
