"""Convert a checkpoint file by file, several at once; each is verified once it is written.

A file counts as finished when it was read again from the disk and every tensor in it had the digest
that was taken of the source's. What is finished survives an interruption. The target takes its name
only when all files are finished.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import RunError
from engine.weights.hugging_face import write_text
from engine.weights.values import check_weights
from tools.convert.digests import TensorDigest, tensor_digest
from tools.convert.leftovers import Leftovers
from tools.convert.plan import PlannedFile, check_plan
from tools.convert.sources import Source
from tools.convert.targets import RECORD, Target, Tensors

SPARE_BYTES = 1 << 20
"""For index, records, config and tokenizer, beyond a hundredth of the weights."""

Progress = Callable[[int], object]
"""Told how many bytes of tensors were read from the source, each time."""


class Stopped(Exception):
    """Raised in a file's worker when another file has failed."""


@dataclass
class Conversion:
    """One conversion to be done by :meth:`run`.

    Attributes:
        workers: files that are written at once.
    """

    source: Source
    target: Target
    to: Path
    workers: int
    progress: Progress = lambda size: None
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> dict[str, Any]:
        """Convert, or go on converting.

        Returns:
            The record of the conversion.

        Raises:
            RunError: a tensor is no weight, the target exists, or the disk is too small or refuses;
                what was finished is kept.
        """
        check_plan(self.source.maps.values(), self.target.planned)
        leftovers = Leftovers(self.to)
        plan = {
            "source": self.source.state(),
            "options": self.target.options,
            "digests": "blake3",
            "files": {file.name: [len(file.maps), file.bytes] for file in self.target.planned},
        }
        with leftovers.claimed(plan):
            return self._finish(leftovers, self._all_files(leftovers))

    def _all_files(self, leftovers: Leftovers) -> dict[str, dict[str, Any]]:
        """Return the records of all files, by name."""
        planned = self.target.planned
        open_files = [file for file in planned if leftovers.record(file.name) is None]
        self._check_room(leftovers, open_files)
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                futures = [pool.submit(self._one_file, leftovers, file) for file in planned]
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            except BaseException:  # Ctrl-C: files that are being written stop at their next tensor
                self._stop.set()
                pool.shutdown(cancel_futures=True)
                raise
            if any(future.exception() for future in done):
                pool.shutdown(cancel_futures=True)  # and wait: the first to end may be a victim
                ended = (future.exception() for future in futures if not future.cancelled())
                raise next(e for e in ended if e is not None and not isinstance(e, Stopped))
            return {file.name: f.result() for file, f in zip(planned, futures, strict=True)}

    def _one_file(self, leftovers: Leftovers, planned: PlannedFile) -> dict[str, Any]:
        try:
            record = leftovers.record(planned.name)
            if record is not None and self._still_proven(leftovers, planned, record):
                return record
            return self._convert(leftovers, planned)
        except OSError as error:
            self._stop.set()
            raise RunError(
                f"cannot write {leftovers.target / planned.name}: {error.strerror or error}; "
                f"finished files are kept in {leftovers.root}: make room and start the same "
                f"conversion again"
            ) from None
        except BaseException:
            self._stop.set()
            raise

    def _convert(self, leftovers: Leftovers, planned: PlannedFile) -> dict[str, Any]:
        file = leftovers.target / planned.name
        expected: dict[str, TensorDigest] = {}
        written = self.target.write(file, planned, self._tensors(planned, expected))
        if problem := self._problem(file, planned, written, expected):
            raise RunError(f"{file} is not what was written: {problem}")
        tensors = {name: digest.as_json() for name, digest in expected.items()}
        record = {"written": written, "tensors": tensors}
        leftovers.finished(planned.name, record)
        return record

    def _tensors(self, planned: PlannedFile, digests: dict[str, TensorDigest]) -> Iterator[Tensors]:
        """Yield one file's tensors, checked, and add the digests of what is to be written."""
        for tensor_map in planned.maps:
            if self._stop.is_set():
                raise Stopped
            parts = self.source.parts(tensor_map)
            check_weights(tensor_map.names, parts, f"model: {self.source.path}")
            size = sum(part.nbytes for part in parts)
            named = self.target.prepare(tensor_map, parts)
            digests.update((name, tensor_digest(tensor)) for name, tensor in named.items())
            yield tensor_map, named
            self.progress(size)

    def _problem(
        self,
        file: Path,
        planned: PlannedFile,
        written: dict[str, Any],
        expected: dict[str, TensorDigest],
    ) -> str | None:
        """Return how the file on the disk differs from ``expected``; None if it does not."""
        missing = set(expected)
        try:
            for _, named in self.target.read_back(file, planned, written):
                if self._stop.is_set():
                    raise Stopped
                for name, tensor in named.items():
                    if tensor_digest(tensor) != expected.get(name):
                        return f"{name} differs"
                    missing.discard(name)
        except (OSError, ValueError) as error:
            return str(error)
        return f"{min(missing)} is not in it" if missing else None

    def _still_proven(
        self, leftovers: Leftovers, planned: PlannedFile, record: dict[str, Any]
    ) -> bool:
        """Return whether a file finished earlier is as recorded; else it will be written again."""
        expected = {n: TensorDigest.from_json(found) for n, found in record["tensors"].items()}
        file = leftovers.target / planned.name
        if self._problem(file, planned, record["written"], expected) is None:
            self.progress(sum(d.bytes for m in planned.maps for d in self.source.describe(m)))
            return True
        leftovers.forget(planned.name)
        return False

    def _check_room(self, leftovers: Leftovers, files: list[PlannedFile]) -> None:
        """Check for free space. Half-written files are overwritten: they count as free."""
        stale = [leftovers.target / file.name for file in files]
        there = sum(file.stat().st_size for file in stale if file.exists())
        needed = sum(file.bytes for file in files) * 101 // 100 + SPARE_BYTES
        free = shutil.disk_usage(leftovers.root).free + there
        if needed > free:
            raise RunError(
                f"the disk of {self.to} is too small: {needed:,} bytes are needed and {free:,} are "
                f"free"
            )

    def _finish(self, leftovers: Leftovers, records: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Compare the tensors of all files with the source's; then rename the target into place."""
        tensors = {}
        for planned in self.target.planned:
            for name, found in records[planned.name]["tensors"].items():
                if name in tensors:
                    raise RunError(f"{name} was written twice, into {planned.name}, too")
                tensors[name] = {**found, "file": planned.name}
        wanted = {name for tensor_map in self.source.maps.values() for name in tensor_map.names}
        if lost := sorted(wanted - set(tensors)):
            raise RunError(f"{len(lost)} tensors were not written, first {lost[0]}")
        record = {
            "from": str(self.source.path.resolve()),
            "kind": self.source.kind,
            "options": self.target.options,
            "tensors": dict(sorted(tensors.items())),
        }
        try:
            write_text(leftovers.target / RECORD, json.dumps(record, indent=0) + "\n")
            self.target.complete(
                leftovers.target, {name: found["written"] for name, found in records.items()}
            )
            leftovers.become_the_target()
        except OSError as error:
            raise RunError(
                f"cannot write {leftovers.target}: {error.strerror or error}; finished files are "
                f"kept: make room and start the same conversion again"
            ) from None
        return record
