"""Words for the end of a run whose numbers are not finite: what is not, and the likeliest cause.

Two moments are watched (``trained_model.py``): before the optimizer steps, loss and gradient; after
it, the weights. What is not finite there is not stepped, saved or pushed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from engine.errors import RunError

NAMED = 3
"""Tensors that a sentence names before it says how many more there are."""


class Diverged(RunError):
    """Training has diverged. Raised on all ranks alike.

    Attributes:
        start_is_good: whether the weights that the step began with have given a finite loss and
            gradient, so that a checkpoint of them is one to go on from.
    """

    def __init__(self, message: str, *, start_is_good: bool) -> None:
        super().__init__(message)
        self.start_is_good = start_is_good


def not_finite(values: Mapping[str, float]) -> dict[str, float]:
    """Return those of ``values`` that are NaN or infinite."""
    return {name: value for name, value in values.items() if not math.isfinite(value)}


def bad_loss(
    objective: float, metrics: Mapping[str, float], odd_weights: Sequence[str], rate: float
) -> str:
    """Return what to say of a minibatch whose loss is not finite.

    Args:
        objective: the value that gradients are made of.
        metrics: of the loss; some may be what it is made of.
        odd_weights: names of weights that are not finite themselves.
        rate: learning rate of the update.
    """
    odd = not_finite(metrics) or {"loss": objective}
    what = f"its loss is not finite ({_values(odd)}), so no update was made"
    if odd_weights:
        return (
            f"{what}; weights are not finite themselves ({listed(odd_weights)}): either they were "
            f"loaded so, from the folder of the model, or an update made them so: {_lower(rate)}"
        )
    if math.isfinite(metrics.get("entropy", math.nan)):
        # The distributions are sound: what is compared with them is not.
        return (
            f"{what}, although the policy's own distributions are finite (entropy "
            f"{metrics['entropy']:g}); most likely it is too far from the policy that sampled or "
            f"from the reference: lower optimizer.lr (the rate is {rate:g}), or refresh the "
            f"reference earlier"
        )
    return f"{what}; most likely earlier updates were too large: {_lower(rate)}"


def bad_gradient(norm: float, odd_gradients: Sequence[str], rate: float) -> str:
    """Return what to say of a minibatch whose loss is finite and whose gradient is not.

    Args:
        norm: of the gradient.
        odd_gradients: names of the weights whose gradients are not finite, from the output down.
        rate: learning rate of the update.
    """
    where = (
        f"not finite, from the output downwards, is the gradient of {listed(odd_gradients)}"
        if odd_gradients
        else "each number is finite, but their squares add up to more than float32 holds"
    )
    return (
        f"its loss is finite, but the norm of its gradient is {norm}, so no update was made; "
        f"{where}; most likely earlier updates were too large: {_lower(rate)}"
    )


def bad_weights(
    norm: float, before: float, after: Mapping[str, float], odd_weights: Sequence[str], rate: float
) -> str:
    """Return what to say of an update that made weights which cannot be trained on.

    Args:
        norm: of the gradient, finite.
        before: norm of the weights before the update.
        after: what is not finite with the weights that it made.
        odd_weights: names of weights that are not finite themselves.
        rate: learning rate of the update.
    """
    where = f", in {listed(odd_weights)}" if odd_weights else ""
    if not math.isfinite(before):
        return (
            f"its gradient was finite (norm {norm:g}), but the norm of the weights was {before} "
            "before the update already: the model has weights of 1e19 or more, which cannot be "
            "trained on; look for them in the folder of the model"
        )
    return (
        f"its gradient was finite (norm {norm:g}), but the update at a learning rate of {rate:g} "
        f"made weights that cannot be trained on (norm before: {before:g}; now not finite: "
        f"{_values(after)}{where}); most likely the learning rate is too high: lower optimizer.lr"
    )


def listed(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _values(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _lower(rate: float) -> str:
    return f"lower optimizer.lr (the rate is {rate:g}) or lengthen optimizer.warmup_steps"
