"""Spikes of the gradient norm: a norm that is many times the median of those before it.

A bad minibatch can undo what hundreds have learned, although its gradient is clipped: Adam divides
by the root of the mean square, which one gradient hardly moves. PaLM (arXiv 2204.02311, section
5.1) skipped the batches around a spike by hand; here it is a rule.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from statistics import median

WINDOW = 64
"""The median is of so many minibatches, the newest before the one that is judged."""
FEWEST = 16
"""With fewer than these nothing is a spike: the first norms of a run fall fast."""


class GradientNorms:
    """The gradient norms of the newest minibatches, skipped ones included.

    The skipped count, so that a level which rises for good is the usual one after half a window;
    a median does not follow the few that are spikes.
    """

    def __init__(self, norms: Iterable[float] = ()) -> None:
        """Args:
        norms: finite, in their order.
        """
        self._norms: deque[float] = deque(norms, maxlen=WINDOW)

    def values(self) -> list[float]:
        """Return the norms, the oldest first, at most :data:`WINDOW`."""
        return list(self._norms)

    def median(self) -> float | None:
        """Return their median; None while there are fewer than :data:`FEWEST`."""
        return median(self._norms) if len(self._norms) >= FEWEST else None

    def add(self, norm: float) -> None:
        """Append the norm of the newest minibatch; beyond :data:`WINDOW` the oldest goes."""
        self._norms.append(norm)


def is_spike(norm: float, usual: float | None, factor: float | None) -> bool:
    """Return whether ``norm`` is more than ``factor`` times ``usual``; False where one is None."""
    return usual is not None and factor is not None and norm > factor * usual
