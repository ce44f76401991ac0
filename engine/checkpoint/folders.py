"""Name, order and delete the checkpoints in a run's ``checkpoints/`` folder.

``000012``             whole, of step 12
``000012.partial-*``   being written, or left by a crash
``000012.removed``     being deleted, or left by a crash
``000012.replaced``    an older one of step 12, until the newer has its place
``000012.damaged``     failed verification and was passed over; kept for whoever wants to look

Every change is a rename, so that a crash at any moment leaves a folder with a plain number whole.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from pathlib import Path

from engine.platform.files import folders_named, sync

RECORD = "run.json"
"""File of a checkpoint with all that is no tensor: step, layout, optimizer updates, progress."""
_NAMES = r"[0-9]{6,}(\.partial-\w+|\.removed|\.replaced)?"
"""Of the folders that are looked at, and deleted in time; a person may keep others beside them."""


class CheckpointFolders:
    """Names, order and retention of a run's checkpoints. One process writes, any may read."""

    def __init__(self, root: Path, keep: int) -> None:
        """Args:
        root: the run's ``checkpoints/`` folder; made when first written to.
        keep: how many of the newest stay, at least 1.
        """
        self.root, self.keep = root, keep

    def steps(self) -> list[int]:
        """Return the steps with a whole checkpoint, ascending."""
        return sorted(int(folder.name) for folder in self._entries() if folder.name.isdigit())

    def latest(self) -> int | None:
        """Return the newest whole checkpoint's step, None where there is none."""
        steps = self.steps()
        return steps[-1] if steps else None

    def folder(self, step: int) -> Path:
        """Return the folder of the whole checkpoint of ``step``."""
        return self.root / f"{step:06d}"

    def misnamed(self, step: int) -> str | None:
        """Return what to say of a checkpoint that was renamed to ``step``; None if it was not.

        Whether its record can be read at all is told where the checkpoint is verified.
        """
        folder = self.folder(step)
        try:
            made = json.loads((folder / RECORD).read_bytes())["step"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if made == step:
            return None
        return f"checkpoint {folder} is of step {made}, not of that of its name; rename it"

    def begin(self, step: int) -> Path:
        """Return a new folder to write the checkpoint of ``step`` into; clean up after crashes.

        Its name is new each time: a writer of an earlier run that is somehow still alive on
        another machine cannot reach into it.
        """
        self.clean()
        partial = self.root / f"{step:06d}.partial-{secrets.token_hex(4)}"
        partial.mkdir(parents=True)
        return partial

    def commit(self, step: int, partial: Path) -> None:
        """Declare the folder of ``begin`` whole; every older one stays until :meth:`retain`."""
        sync(partial)
        if (whole := self.folder(step)).exists():
            whole.rename(whole.with_suffix(".replaced"))
        partial.rename(whole)
        sync(self.root)
        self.clean()

    def retain(self) -> None:
        """Delete checkpoints beyond ``keep``; to be called when the newest is known to be good."""
        for old in self.steps()[: -self.keep]:
            _remove(self.folder(old))

    def remove(self, step: int) -> None:
        """Delete the whole checkpoint of ``step``."""
        _remove(self.folder(step))

    def quarantine(self, step: int) -> Path:
        """Rename the damaged checkpoint of ``step`` and return its new folder."""
        aside = self.folder(step).with_suffix(".damaged")
        shutil.rmtree(aside, ignore_errors=True)
        return self.folder(step).rename(aside)

    def clean(self) -> None:
        """Delete what a crash left half written or half deleted."""
        for entry in self._entries():
            if re.fullmatch(r"\d+\.replaced", entry.name):
                if entry.with_suffix("").exists():
                    _remove(entry)
                else:  # the crash came between the two renames of a commit
                    entry.rename(entry.with_suffix(""))
            elif re.fullmatch(r"\d+\.(partial-\w+|removed)", entry.name):
                _remove(entry)

    def _entries(self) -> list[Path]:
        return folders_named(_NAMES, self.root)


def _remove(folder: Path) -> None:
    """Rename ``folder``, then delete it: a crash in the middle leaves no half of a whole one."""
    removed = folder
    if folder.suffix in ("", ".replaced"):
        removed = folder.with_suffix(".removed")
        shutil.rmtree(removed, ignore_errors=True)
        folder.rename(removed)
    shutil.rmtree(removed)
