"""Sources for the loaders' tests, in a module that DALI's worker process can import."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from engine.errors import RunError


@dataclass(frozen=True)
class Slow:
    """Every sample takes so long."""

    seconds: float

    def sample(self, index: int) -> tuple[list[int], list[int]]:
        time.sleep(self.seconds)
        return [1], [index]


@dataclass(frozen=True)
class BadAt:
    """One sample cannot be read."""

    bad: int

    def sample(self, index: int) -> tuple[list[int], list[int]]:
        if index == self.bad:
            raise RunError(f"sample {index} is bad")
        return [1], [index]


@dataclass(frozen=True)
class Counting:
    """Leaves a file for every sample that was read."""

    folder: Path

    def sample(self, index: int) -> tuple[list[int], list[int]]:
        (self.folder / str(index)).touch()
        return [1], [index]
