"""How many samples of a shuffled dataset a run has learned, whatever the size of its batches."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil


@dataclass
class DataPosition:
    """The position of one start of a run in its dataset, counted over all epochs.

    Attributes:
        first_step: the step that this start begins with.
        before: samples that the checkpoint's steps have learned; None: it is of an earlier version,
            which does not say, and whose steps all had batches of one size.
        batch: samples of one step of this start; None until it begins to load them.
    """

    first_step: int
    before: int | None = None
    batch: int | None = None

    def begun(self, batch: int) -> int:
        """Return the samples that this start goes on behind; ``batch``: those of one step."""
        return self.first_step * batch if self.before is None else self.before

    def last_step(self, samples: int, batch: int) -> int:
        """Return how many steps the run has in all when it has learned ``samples``.

        Args:
            samples: to learn in all, those before this start included.
            batch: samples of one step from here on.
        """
        return self.first_step + ceil(max(0, samples - self.begun(batch)) / batch)

    def at(self, step: int) -> int | None:
        """Return the samples that are learned before ``step``; None if none are loaded."""
        if self.batch is None:
            return None
        return self.begun(self.batch) + (step - self.first_step) * self.batch
