"""Measure the seconds of a step by named phase."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

OUTSIDE = "other"  # what is spent in no phase


class Phases:
    """Charges every second to exactly one phase.

    Invariants, asserted by tests of their names:
    - the seconds of all phases add up to the time since the last take
    - a nested phase's seconds are its own and not the outer one's

    ::

        with phases("update"):
            ...
        seconds = phases.take()     # {"update": 1.8, "other": 0.1}
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        synchronize: Callable[[], None] | None = None,
    ) -> None:
        """Start counting.

        Args:
            clock: seconds, never going back.
            synchronize: called at each boundary. A GPU returns before it has done its work: without
                waiting for it, the work would be charged to whichever phase comes next.
        """
        self._clock = clock
        self._synchronize = synchronize
        self._open = [OUTSIDE]
        self._seconds: dict[str, float] = {}
        self._mark = clock()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Charge the time of the ``with`` block to ``name``, on top of what it already has."""
        self._charge()
        self._open.append(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def take(self) -> dict[str, float]:
        """Return the seconds of each phase since the last take (or the start) and start anew.

        Phases stand in the order in which they first got time; ``"other"`` comes last.
        """
        self._charge()
        taken, self._seconds = self._seconds, {}
        outside = taken.pop(OUTSIDE, 0.0)
        return {**taken, OUTSIDE: outside}

    def _charge(self) -> None:
        if self._synchronize is not None:
            self._synchronize()
        now = self._clock()
        phase = self._open[-1]
        self._seconds[phase] = self._seconds.get(phase, 0.0) + now - self._mark
        self._mark = now
