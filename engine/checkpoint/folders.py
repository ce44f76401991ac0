"""The ``checkpoints/`` folder of a run: which checkpoints are whole, which is last, which may go.

A checkpoint is written to ``000012.partial`` and renamed to ``000012`` when every rank is done, so
a folder with a plain number is always whole.
"""

from __future__ import annotations

import shutil
from pathlib import Path


class CheckpointFolders:
    """Names, order and retention of a run's checkpoints."""

    def __init__(self, root: Path, keep: int) -> None:
        """Args:
        root: the run's ``checkpoints/`` folder; made when first written to.
        keep: how many of the newest stay, at least 1.
        """
        self.root, self.keep = root, keep

    def steps(self) -> list[int]:
        """Steps with a whole checkpoint, ascending."""
        if not self.root.is_dir():
            return []
        return sorted(int(folder.name) for folder in self.root.iterdir() if folder.name.isdigit())

    def latest(self) -> int | None:
        """The newest whole checkpoint's step, None where there is none."""
        steps = self.steps()
        return steps[-1] if steps else None

    def folder(self, step: int) -> Path:
        """Where the whole checkpoint of ``step`` lies."""
        return self.root / f"{step:06d}"

    def begin(self, step: int) -> Path:
        """An empty folder to write the checkpoint of ``step`` into; leftovers of a crash go."""
        partial = self.partial(step)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        return partial

    def partial(self, step: int) -> Path:
        """Where the checkpoint of ``step`` is written before it is whole."""
        return self.root / f"{step:06d}.partial"

    def commit(self, step: int) -> None:
        """Declare the checkpoint of ``step`` whole, then delete those beyond ``keep``."""
        shutil.rmtree(self.folder(step), ignore_errors=True)
        self.partial(step).rename(self.folder(step))
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self.folder(old))
