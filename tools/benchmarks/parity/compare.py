"""Compare a layout's three updates with one process's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

MAX_LOSS_DIFFERENCE = 1e-5
MAX_WEIGHT_DIFFERENCE = 0.01
"""Of the largest update of any weight."""

Weights = Mapping[tuple[str, int | None], Tensor]
"""Whole tensors by (megatron key, expert)."""


@dataclass(frozen=True)
class Outcome:
    """Losses and updated weights of one layout.

    Attributes:
        losses: of each update, and then the prediction head's, where there is one.
        weights: after the last; None on all ranks but the first.
    """

    losses: list[float]
    weights: Weights | None


@dataclass(frozen=True)
class Difference:
    """Differences of a layout from one process.

    Attributes:
        loss: largest difference of any update's loss.
        weight: largest difference of any weight, as a share of the largest update.
        where: the tensor that holds it.
        tensors: how many were compared.
        bias_moved: smallest movement of a router bias, 0 where there are none.
    """

    loss: float
    weight: float
    where: str
    tensors: int
    bias_moved: float

    @property
    def holds(self) -> bool:
        """True if both are within their bounds."""
        return self.loss <= MAX_LOSS_DIFFERENCE and self.weight <= MAX_WEIGHT_DIFFERENCE


def compare(before: Weights, expected: Outcome, found: Outcome) -> Difference:
    """Compare every tensor by name.

    Args:
        before: the weights that both began with.

    Raises:
        ValueError: the two do not hold the same tensors, or one has NaNs.
    """
    assert expected.weights is not None and found.weights is not None
    differing = set(before) ^ set(found.weights) | set(expected.weights) ^ set(found.weights)
    if differing:
        raise ValueError(f"tensors that only one side holds: {sorted(map(str, differing))}")
    bad = [key for key, tensor in found.weights.items() if not tensor.isfinite().all()]
    if bad:
        raise ValueError(f"tensors with NaN or infinity: {bad}")
    moved = {key: _largest(expected.weights[key] - before[key]) for key in before}
    # A router's bias moves by a fixed step, not by its gradient: exactness is asked of it.
    biases = [key for key in before if key[0].endswith("expert_bias")]
    largest_update = max(moved[key] for key in before if key not in biases)
    off = {
        key: _largest(tensor - expected.weights[key])
        / (min(moved[key], largest_update) if key in biases else largest_update)
        for key, tensor in found.weights.items()
    }
    worst = max(off, key=lambda key: off[key])
    return Difference(
        loss=max(abs(a - b) for a, b in zip(expected.losses, found.losses, strict=True)),
        weight=off[worst],
        where=worst[0] if worst[1] is None else f"{worst[0]} of expert {worst[1]}",
        tensors=len(before),
        bias_moved=min((moved[key] for key in biases), default=0.0),
    )


def _largest(tensor: Tensor) -> float:
    return float(tensor.abs().max())
