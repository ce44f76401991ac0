"""Decide whether the update of a minibatch is made: finite numbers, and no spike.

Its inputs are equal on all ranks (sums over ranks), and so are its decisions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.training import divergence
from engine.training.divergence import Diverged
from engine.training.spikes import WINDOW, GradientNorms, is_spike

Names = Callable[[], Sequence[str]]
"""Names tensors that are not finite; called only when a run ends. A collective."""

LARGEST_GROWTH = 1.5
"""Of the norm of all weights in one update. Training moves it by thousandths; beyond this the
gradient is computed once more, with the new weights, before anybody else sees them."""


class UpdateGuard:
    """The minibatches of a run, one after the other, as what decides over their updates sees them.

    Attributes:
        skip_spikes: a minibatch whose gradient norm is more than so many times the median is
            skipped; None: none is.
        skipped: minibatches that were, since the run began.
        tried: whether a minibatch of this step has had a finite loss and gradient, so that the
            weights that the step began with can be trained on.
    """

    def __init__(self, skip_spikes: float | None) -> None:
        self.skip_spikes = skip_spikes
        self.skipped = 0
        self._norms = GradientNorms()
        self.tried = False
        self._step, self._minibatch = 0, -1
        self._notes: list[str] = []

    def begin_step(self, step: int) -> None:
        """The minibatches from now on are those of ``step``, counted from 0."""
        self.tried = False
        self._step, self._minibatch = step, -1

    def begin_minibatch(self) -> None:
        """The next minibatch begins."""
        self._minibatch += 1

    def admits(
        self,
        objective: float,
        metrics: Mapping[str, float],
        norm: float,
        rate: float,
        *,
        odd_weights: Names,
        odd_gradients: Names,
    ) -> bool:
        """Return whether the optimizer shall step; False for a spike.

        Args:
            objective: the minibatch's loss, over all ranks: what the gradient is of.
            metrics: what the loss function told of it.
            norm: of the gradient, over all ranks, before clipping.
            rate: learning rate of the update.

        Raises:
            Diverged: one of them is NaN or infinite.
        """
        if divergence.not_finite({"loss": objective, **metrics}):
            self.refuse(divergence.bad_loss(objective, metrics, odd_weights(), rate))
        if not math.isfinite(norm):
            self.refuse(divergence.bad_gradient(norm, odd_gradients(), rate))
        self.tried = True
        usual = self._norms.median()
        self._norms.add(norm)
        if not is_spike(norm, usual, self.skip_spikes):
            return True
        assert usual is not None
        self.skipped += 1
        self._notes.append(
            f"step {self._step}, minibatch {self._minibatch}: skipped; its gradient norm {norm:g} "
            f"is {norm / usual:.1f} times {usual:g}, the median of the last {WINDOW}"
        )
        return False

    def refuse(self, why: str) -> None:
        """End the run.

        Raises:
            Diverged: always; names step and minibatch.
        """
        # Between two steps there is no minibatch yet.
        where = f", minibatch {self._minibatch}" if self._minibatch >= 0 else ""
        raise Diverged(
            f"training diverged at step {self._step}{where}: {why}", start_is_good=self.tried
        )

    def take_notes(self) -> list[str]:
        """Return what is to be said of skipped minibatches, once."""
        notes, self._notes = self._notes, []
        return notes

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs to decide alike, as plain JSON values."""
        return {"gradient_norms": self._norms.values(), "skipped": self.skipped}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self._norms = GradientNorms(state["gradient_norms"])
        self.skipped = state["skipped"]
