"""How many samples of each of its sources a run has learned, whatever the size of its batches."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil


class DataPosition:
    """The positions of one start of a run in the sources that it learns from, one after the other.

    Each is counted from the source's first sample, over all epochs.
    """

    def __init__(self, first_step: int, learned: Mapping[str, int] | None = None) -> None:
        """Begin where a checkpoint ended.

        Args:
            first_step: the step that this start begins with.
            learned: samples by source that the checkpoint's steps have learned; None: it is of an
                earlier version, which does not say, and all its steps had batches of one size.
        """
        self.first_step = first_step
        self._learned = dict(learned or {})
        self._unsaid_steps = first_step if learned is None else 0
        self._source, self._batch, self._since = "", 0, first_step  # what is learned now

    def begin(self, source: str, batch: int, step: int) -> int:
        """Note that the run learns from ``source`` now, and return how much of it it has learned.

        Args:
            source: its name.
            batch: samples of one step.
            step: the first one that learns from it.
        """
        learned = self.before(step)
        learned[source] = self._before_begin(learned, source, batch)
        self._learned = learned
        self._source, self._batch, self._since = source, batch, step
        return learned[source]

    def last_step(self, source: str, samples: int, batch: int) -> int:
        """Return how many steps a run has in all that learns from one source.

        Args:
            source: its name.
            samples: to learn in all, those before this start included.
            batch: samples of one step from here on.
        """
        left = samples - self._before_begin(self._learned, source, batch)
        return self.first_step + ceil(max(0, left) / batch)

    def before(self, step: int) -> dict[str, int]:
        """Return the samples that are learned before ``step``, by source."""
        learned = dict(self._learned)
        if self._batch:
            learned[self._source] += (step - self._since) * self._batch
        return learned

    def _before_begin(self, learned: Mapping[str, int], source: str, batch: int) -> int:
        return learned.get(source, self._unsaid_steps * batch)
