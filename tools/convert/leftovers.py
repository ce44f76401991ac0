"""Folder of an unfinished conversion beside its target, from which it goes on.

``NAME.partial/target/``    files of the target, finished ones and those being written
``NAME.partial/records/``   one file each time a file of the target is finished and proven
``NAME.partial/plan.json``  what is converted and how: only the same conversion goes on
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.errors import RunError
from engine.platform.files import replace_json, sync

_HELD = {"target", "records", "lock", "plan.json", "plan.json.part"}


def refuse_existing(to: Path) -> None:
    """Raise RunError where the target exists."""
    if to.exists() or to.is_symlink():
        raise RunError(f"{to} exists: a conversion never writes over anything")


class Leftovers:
    """Folder ``NAME.partial`` of one conversion."""

    def __init__(self, to: Path) -> None:
        self.to, self.root = to, to.with_name(to.name + ".partial")
        self.target, self._records = self.root / "target", self.root / "records"

    @contextmanager
    def claimed(self, plan: dict[str, Any]) -> Iterator[None]:
        """Make the folder and lock it for this process.

        Raises:
            RunError: the target exists, another process works here, the leftovers are those of
                another conversion, or the folder is none that a conversion has left.
        """
        refuse_existing(self.to)
        self._refuse_foreign()
        try:
            self.target.mkdir(parents=True, exist_ok=True)
            self._records.mkdir(exist_ok=True)
            lock = (self.root / "lock").open("w")
        except OSError as error:
            raise RunError(f"cannot write {self.root}: {error.strerror or error}") from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with this process
            except BlockingIOError:
                raise RunError(f"another process is converting into {self.root}") from None
            self._same_plan(plan)
            yield

    def record(self, name: str) -> dict[str, Any] | None:
        """Return the record of the finished file ``name``; None if it is not finished."""
        try:
            found: dict[str, Any] = json.loads((self._records / f"{name}.json").read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise RunError(f"{self._records / name}.json is damaged: {error}") from None
        return found

    def finished(self, name: str, record: dict[str, Any]) -> None:
        """Record that a file is finished. Raises RunError when the disk refuses."""
        replace_json(self._records / f"{name}.json", record)

    def forget(self, name: str) -> None:
        """Remove the record of a file that differs from it."""
        (self._records / f"{name}.json").unlink()

    def become_the_target(self) -> None:
        """Give the complete files the target's name, by one rename."""
        sync(self.target)
        self.target.rename(self.to)
        sync(self.to.parent)
        shutil.rmtree(self.root, ignore_errors=True)

    def _refuse_foreign(self) -> None:
        """Raise RunError where the folder holds what no conversion wrote: all of it is deleted."""
        try:
            held = {entry.name: entry.is_symlink() for entry in self.root.iterdir()}
            parts = (self.target, self._records)
            begun = "plan.json" in held or not any(any(part.glob("*")) for part in parts)
        except FileNotFoundError:
            if not self.root.is_symlink():
                return
            held, begun = {}, False
        except OSError as error:
            raise RunError(f"cannot read {self.root}: {error.strerror or error}") from None
        if self.root.is_symlink() or any(held.values()) or held.keys() - _HELD or not begun:
            raise RunError(
                f"{self.root} exists, but no conversion has left it: move it away, or convert to "
                "another place"
            )

    def _same_plan(self, plan: dict[str, Any]) -> None:
        file = self.root / "plan.json"
        if not file.exists():
            replace_json(file, plan)
            return
        try:
            before = json.loads(file.read_text())
        except ValueError as error:
            raise RunError(f"{file} is damaged: {error}; delete {self.root}") from None
        if before != plan and not any(self._records.iterdir()):  # nothing was finished
            shutil.rmtree(self.target)
            self.target.mkdir()
            replace_json(file, plan)
        elif before != plan:
            odd = next(key for key in plan if before.get(key) != plan[key])
            raise RunError(
                f"{self.root} is left from another conversion (its {odd} differs): delete it, or "
                f"convert to another place"
            )
