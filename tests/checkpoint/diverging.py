"""What ranks of the pool do while their training diverges: updates, and checkpoints beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from checkpointed_runs import TRAINING, Life, checkpoints  # isort: skip  (readies the platform)

import torch
import torch.distributed as dist
from torch import Tensor

from engine.algorithms.next_token import next_token
from engine.config.layout import LayoutConfig
from engine.training.divergence import Diverged
from engine.training.spikes import FEWEST
from engine.weights.shards import unwrap

Told = tuple[str, bool]
"""The sentence, and whether the weights before are good."""


def _nan_on_the_last_rank(outputs: Any, row: Any) -> tuple[Tensor, dict[str, Tensor]]:
    loss, metrics = next_token(outputs, row)
    if dist.get_rank() == dist.get_world_size() - 1:
        loss, metrics = loss * float("nan"), {"loss": metrics["loss"] * float("nan")}
    return loss, metrics


def _no_gradient_at_all(outputs: Any, row: Any) -> tuple[Tensor, dict[str, Tensor]]:
    loss, metrics = next_token(outputs, row)
    nothing = outputs.logp - outputs.logp.detach()
    return loss + nothing.abs().sqrt().sum(), metrics  # 0; its gradient is 0 / 0


def _huge(outputs: Any, row: Any) -> tuple[Tensor, dict[str, Tensor]]:
    loss, metrics = next_token(outputs, row)
    return loss * 1e25, metrics


def _silent(outputs: Any, row: Any) -> tuple[Tensor, dict[str, Tensor]]:
    return next_token(outputs, row)[0] * float("inf"), {}


LOSSES: dict[str, Callable[..., Any]] = {
    "nan on one rank": _nan_on_the_last_rank,
    "the gradient alone": _no_gradient_at_all,
    "squares beyond float32": _huge,
    "a loss that tells nothing": _silent,
}


def told_by(action: Callable[..., Any], *arguments: Any, **options: Any) -> Told | None:
    try:
        action(*arguments, **options)
    except Diverged as error:
        return str(error), error.start_is_good
    return None


def weights(life: Life) -> list[Tensor]:
    """Everything that an update changes on this rank: parameters, masters, moments."""
    bare = [unwrap(chunk) for chunk in life.policy.chunks]
    for chunk in bare:
        chunk.wait_for_parameters()  # that other ranks have updated
    found = [p.detach().clone() for chunk in bare for p in chunk.parameters()]
    found += [buffer.clone() for chunk in bare for buffer in chunk.buffers()]
    for part in life.policy.optimizer.chained_optimizers:
        if not part.is_stub_optimizer:
            for own in part.optimizer.state.values():
                found += [value.clone() for value in own.values() if torch.is_tensor(value)]
            found += [p.detach().clone() for p in part.get_parameters()]
    return found


def twins(layout: LayoutConfig, model: Mapping[str, Any], options: Mapping[str, Any]) -> list[Life]:
    """Two policies with the same weights."""
    training = TRAINING.model_copy(update=options)
    one, other = Life(layout, model, training), Life(layout, model, training)
    for ours, theirs in zip(one.policy.chunks, other.policy.chunks, strict=True):
        unwrap(theirs).load_state_dict(unwrap(ours).state_dict())
    other.policy.parameters_changed()
    return [one, other]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def refuse(layout: LayoutConfig, model: Mapping[str, Any], loss: str) -> tuple[Told | None, bool]:
    """An update whose numbers are not finite: what was said, and whether nothing was changed."""
    life = Life(layout, model)
    life.update(0)
    before = weights(life)
    life.policy.guard.begin_step(5)
    told = told_by(life.update, 1, loss=LOSSES[loss])
    return told, equal(before, weights(life))


def step_too_far(
    layout: LayoutConfig, model: Mapping[str, Any], rates: list[float]
) -> list[Told | None]:
    """For each rate what an update at it said, each on a policy of its own."""
    said = []
    for rate in rates:
        life = Life(layout, model)
        life.update(0)
        life.policy.guard.begin_step(5)
        said.append(told_by(life.update, 1, rate=rate))
    return said


def look_twice(
    layout: LayoutConfig, model: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[bool, bool]:
    """Train with and without looks at the new weights: whether weights and expert loads agree."""
    found = []
    for life, looks in zip(twins(layout, model, options), (False, True), strict=True):
        for step in range(3):
            life.update(step)
            if looks:
                life.policy.confirm()
        found.append((weights(life), life.policy.expert_load.take(8)))
    (plain, load), (looked, same_load) = found
    return equal(plain, looked), load == same_load


def skip(
    layout: LayoutConfig, model: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[int, bool, bool]:
    """Train with a spike in the middle: how many were skipped, whether it changed nothing, and
    whether training after it is as if it had not been."""
    spiked, spared = twins(layout, model, options)
    spiked.policy.guard.skip_spikes = 20.0
    for step in range(FEWEST):
        spiked.update(step, rate=1e-4)
        spared.update(step, rate=1e-4)
    before = weights(spiked)
    spiked.update(0, loss=lambda outputs, row: (1000 * next_token(outputs, row)[0], {}))
    unchanged = equal(before, weights(spiked))
    for step in range(3):
        spiked.update(step)
        spared.update(step)
    return spiked.policy.guard.skipped, unchanged, equal(weights(spiked), weights(spared))


def keep_the_last_good_one(
    layout: LayoutConfig, model: Mapping[str, Any], folder: Path, asynchronous: bool
) -> list[list[int]]:
    """Save with keep=1 while training diverges in the first update after a save: what is left."""
    life = Life(layout, model)
    own = checkpoints(folder, keep=1, asynchronous=asynchronous)
    left = []

    def look() -> None:
        dist.barrier()
        left.append(own.folders.steps())
        dist.barrier()

    own.save(3, life.state, {})
    own.finish()
    own.trained_on()
    look()  # 3
    own.save(4, life.state, {})
    if not asynchronous:
        look()  # 3 and 4: nothing has been learned from 4
    own.drop_untried()  # in flight or whole
    look()  # 3
    own.save(5, life.state, {})
    own.trained_on()  # perhaps before it is whole
    own.drop_untried()  # finds none
    look()  # 5
    own.save(6, life.state, {})
    own.finish()
    look()  # 5 and 6
    own.drop_untried()
    look()  # 5
    assert own.latest() == 5 and sorted(e.name for e in folder.iterdir()) == ["000005"]
    return left
