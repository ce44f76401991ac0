"""What holds for every algorithm, whatever the rollout and however it is split into rows."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_objectives import Rollout, Row, naive_advantages, naive_loss, random_rollout
from pydantic import ValidationError
from torch import Tensor

from engine.algorithms.advantages import zero_variance_groups
from engine.algorithms.aggregation import means_over_tokens
from engine.algorithms.algorithm import Algorithm, BatchSizes
from engine.algorithms.cispo import Cispo
from engine.algorithms.dapo import Dapo
from engine.algorithms.dr_grpo import DrGrpo
from engine.algorithms.grpo import Grpo
from engine.algorithms.gspo import Gspo
from engine.algorithms.reinforce_plus_plus import ReinforcePlusPlus
from engine.algorithms.rloo import Rloo
from engine.algorithms.table import ALGORITHMS

CLASSES: dict[str, type[Algorithm]] = {
    "grpo": Grpo,
    "dapo": Dapo,
    "dr_grpo": DrGrpo,
    "gspo": Gspo,
    "cispo": Cispo,
    "rloo": Rloo,
    "reinforce_plus_plus": ReinforcePlusPlus,
}
OPTIONS = {"clip_low": 0.15, "clip_high": 0.25, "kl_coefficient": 0.04}
every_algorithm = pytest.mark.parametrize("name", CLASSES)


def configured(name: str, **options: float) -> Algorithm:
    return CLASSES[name].model_validate({**OPTIONS, **options})


def advantages_of(algorithm: Algorithm, rollout: Rollout) -> list[float]:
    rewards = torch.tensor(rollout.rewards, dtype=torch.float64)
    return algorithm.advantages(rewards, torch.tensor(rollout.groups)).tolist()


def row_of(
    algorithm: Algorithm,
    rollout: Rollout,
    members: Sequence[int],
    minibatches: int = 1,
    junk: float = math.nan,
) -> Row:
    lengths = rollout.lengths
    sizes = BatchSizes(len(lengths), sum(lengths), minibatches, rollout.max_length)
    weights = algorithm.token_weights(lengths, sizes)
    return Row(
        rollout,
        members,
        advantages_of(algorithm, rollout),
        weights,
        junk,
        with_reference=algorithm.uses_reference,
    )


def loss_of(algorithm: Algorithm, row: Row) -> tuple[Tensor, dict[str, Tensor]]:
    return algorithm.loss(row.logp, row.logp.detach().exp(), row)


def gradients(loss: Tensor, rollout: Rollout) -> Tensor:
    return torch.cat(torch.autograd.grad(loss, rollout.logp))


def whole_row(name: str, rollout: Rollout, **options: float) -> tuple[Algorithm, Row]:
    algorithm = configured(name, **options)
    return algorithm, row_of(algorithm, rollout, range(len(rollout.lengths)))


def on_policy(rollout: Rollout) -> Rollout:
    rollout.old = [logp.detach().clone() for logp in rollout.logp]
    return rollout


@dataclass
class SingleTokens:
    """A row of samples of one token each."""

    old_logp: Tensor
    reference_logp: Tensor | None
    advantages: Tensor
    weights: Tensor

    def sample_mean(self, values: Tensor) -> Tensor:
        return values


@st.composite
def rollouts(draw: st.DrawFn) -> Rollout:
    groups = draw(st.lists(st.integers(0, 2), min_size=2, max_size=9))
    rewards = draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=9, max_size=9))
    return random_rollout(groups, rewards[: len(groups)], draw(st.integers(0, 10_000)))


@st.composite
def splits(draw: st.DrawFn, samples: int) -> list[list[list[int]]]:
    """Samples in any order, in equal minibatches, each in rows of any size."""
    order = draw(st.permutations(range(samples)))
    count = draw(st.sampled_from([n for n in range(1, samples + 1) if samples % n == 0]))
    size = samples // count
    parts = [list(order[start : start + size]) for start in range(0, samples, size)]
    split = []
    for part in parts:
        cuts = sorted(draw(st.sets(st.integers(1, len(part) - 1)))) if len(part) > 1 else []
        bounds = [0, *cuts, len(part)]
        split.append([part[a:b] for a, b in pairwise(bounds)])
    return split


@every_algorithm
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_the_mean_over_minibatches_is_the_papers_loss_of_the_rollout(name: str, data):
    """In value and gradient, for every split into equal minibatches and rows, in every order."""
    rollout = data.draw(rollouts())
    split = data.draw(splits(len(rollout.lengths)))
    algorithm = configured(name)
    losses, metrics = [], []
    for rows in split:
        pieces = [
            loss_of(algorithm, row_of(algorithm, rollout, members, len(split))) for members in rows
        ]
        losses.append(sum(loss for loss, _ in pieces))
        metrics.append(sum(found["loss"] for _, found in pieces))
    loss = sum(losses) / len(split)
    expected = naive_loss(name, rollout, **OPTIONS)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients(loss, rollout), gradients(expected, rollout))
    torch.testing.assert_close(sum(metrics) / len(split), expected.detach())


@every_algorithm
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_advantages_are_the_papers_and_move_with_their_samples(name: str, data):
    rollout = data.draw(rollouts())
    order = data.draw(st.permutations(range(len(rollout.groups))))
    algorithm = configured(name)
    found = advantages_of(algorithm, rollout)
    assert found == pytest.approx(naive_advantages(name, rollout.rewards, rollout.groups))
    rollout.rewards = [rollout.rewards[i] for i in order]
    rollout.groups = [rollout.groups[i] for i in order]
    moved = advantages_of(algorithm, rollout)
    assert moved == pytest.approx([found[i] for i in order])


@settings(max_examples=40, deadline=None)
@given(rollout=rollouts())
def test_advantages_over_a_group_baseline_are_the_papers(rollout: Rollout):
    found = advantages_of(ReinforcePlusPlus(group_baseline=True), rollout)
    assert found == pytest.approx(
        naive_advantages(
            "reinforce_plus_plus", rollout.rewards, rollout.groups, group_baseline=True
        )
    )


@every_algorithm
@settings(max_examples=20, deadline=None)
@given(rollout=rollouts())
def test_advantages_sum_to_zero_where_the_paper_says_so(name: str, rollout: Rollout):
    """Within each group; with REINFORCE++ over the rollout, with its group baseline in both."""
    found = advantages_of(configured(name), rollout)
    assert sum(found) == pytest.approx(0.0, abs=1e-9)
    if name == "reinforce_plus_plus":
        found = advantages_of(ReinforcePlusPlus(group_baseline=True), rollout)
        assert sum(a * a for a in found) == pytest.approx(len(found) if any(found) else 0.0)
    for group in set(rollout.groups):
        own = [a for a, g in zip(found, rollout.groups, strict=True) if g == group]
        assert sum(own) == pytest.approx(0.0, abs=1e-9)


@every_algorithm
def test_groups_of_equal_rewards_teach_nothing(name: str):
    rollout = random_rollout([0, 0, 0], [0.1, 0.1, 0.1], seed=3)
    assert advantages_of(configured(name), rollout) == [0.0, 0.0, 0.0]
    algorithm, row = whole_row(name, rollout, kl_coefficient=0.0)
    loss, _ = loss_of(algorithm, row)
    assert gradients(loss, rollout).abs().max() == 0
    rewards = torch.tensor(rollout.rewards)
    assert zero_variance_groups(rewards, torch.tensor(rollout.groups)) == 1


@every_algorithm
@settings(max_examples=15, deadline=None)
@given(rollout=rollouts())
def test_the_gradient_at_ratio_one_is_the_advantage_weighted_policy_gradient(name, rollout):
    algorithm, row = whole_row(name, on_policy(rollout), kl_coefficient=0.0)
    loss, metrics = loss_of(algorithm, row)
    lengths = torch.tensor(rollout.lengths)
    per_sample = torch.tensor(row.sample_advantages) * torch.tensor(row.sample_weights)
    expected = -per_sample.double().repeat_interleave(lengths)
    torch.testing.assert_close(gradients(loss, rollout), expected, rtol=1e-6, atol=1e-7)
    assert metrics["clip_fraction"] == 0


@every_algorithm
@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf])
def test_tokens_of_weight_zero_never_matter(name: str, junk: float):
    rollout = random_rollout([0, 0, 1, 1], [0.0, 1.0, 0.5, 1.0], seed=1)
    algorithm = configured(name)
    clean, dirty = (row_of(algorithm, rollout, range(4), junk=value) for value in (0.0, junk))
    (loss, metrics), (same, same_metrics) = loss_of(algorithm, clean), loss_of(algorithm, dirty)
    assert loss.item() == same.item()
    assert torch.equal(gradients(loss, rollout), gradients(same, rollout))
    assert {k: v.item() for k, v in metrics.items()} == {
        k: v.item() for k, v in same_metrics.items()
    }


@every_algorithm
@pytest.mark.parametrize("far", [99.0, 800.0])
def test_log_probabilities_that_are_far_apart_leave_everything_finite(name: str, far: float):
    """exp(99) is beyond float32, exp(800) beyond float64; advantages of 0 are among them."""
    dtype = torch.float32 if far < 100 else torch.float64
    old = torch.tensor([-far - 1, -1, -far - 1, -1, -far - 1, -1], dtype=dtype)
    row = SingleTokens(
        old_logp=old,
        reference_logp=old,  # as far from the policy, on either side
        advantages=torch.tensor([0, 0, 1, 1, -1, -1], dtype=dtype),
        weights=torch.ones(6, dtype=dtype),
    )
    logp = (-old - far - 2).requires_grad_()
    loss, metrics = configured(name).loss(logp, torch.zeros_like(logp), row)
    (gradient,) = torch.autograd.grad(loss, logp)
    assert gradient.isfinite().all()
    assert all(value.isfinite() for value in metrics.values()), metrics


@pytest.mark.parametrize("name", ["gspo", "cispo", "grpo"])
def test_ratios_within_reach_are_exact_to_the_last_bit(name: str):
    old = -torch.linspace(0.0, 19.5, 101)
    row = SingleTokens(old, None, torch.linspace(-1, 1, 101), torch.ones(101))
    for logp in (torch.zeros(101), old.flip(0), old - 19.9):
        policy = configured(name).policy_loss(logp, old, row.advantages, row.sample_mean)
        assert torch.equal(policy.ratio, (logp - old).exp())


@every_algorithm
def test_without_kl_no_reference_is_asked_for(name: str):
    rollout = random_rollout([0, 0, 0], [0.0, 1.0, 0.5], seed=4)
    algorithm, row = whole_row(name, rollout, kl_coefficient=0.0)
    assert not algorithm.uses_reference
    assert row.reference_logp is None
    loss, metrics = loss_of(algorithm, row)
    assert "kl" not in metrics
    assert loss.item() == metrics["policy_loss"].item()
    assert configured(name).uses_reference


@every_algorithm
def test_metrics_are_detached_sums_and_become_means_over_tokens(name: str):
    rollout = on_policy(random_rollout([0, 0, 0, 0], [0.0, 1.0, 0.5, 1.0], seed=6))
    algorithm, row = whole_row(name, rollout)
    loss, metrics = loss_of(algorithm, row)
    assert not any(value.requires_grad for value in metrics.values())
    assert metrics["weight"].item() == pytest.approx(
        sum(w * n for w, n in zip(row.sample_weights, rollout.lengths, strict=True))
    )
    parts = metrics["policy_loss"] + OPTIONS["kl_coefficient"] * metrics["kl"]
    torch.testing.assert_close(metrics["loss"], parts)
    means = means_over_tokens({name: value.item() for name, value in metrics.items()})
    assert means["ratio"] == pytest.approx(1.0)
    assert means["loss"] == loss.item()
    assert min(p.exp().min() for p in rollout.old) < means["entropy"] < 2
    assert "weight" not in means


@every_algorithm
def test_unknown_options_and_impossible_values_are_refused(name: str):
    for wrong in ({"clip": 0.2}, {"clip_low": 0.0}, {"kl_coefficient": -0.1}, {"clip_high": "1"}):
        with pytest.raises(ValidationError):
            CLASSES[name].model_validate(wrong)
    with pytest.raises(ValidationError, match="frozen"):
        CLASSES[name]().kl_coefficient = 1.0  # type: ignore[misc]


def test_the_table_lists_every_algorithm_and_its_modules_do_not_import_torch():
    program = (
        "import importlib, sys\n"
        f"modules = [importlib.import_module(name) for name in {[*ALGORITHMS.values()]}]\n"
        "found = [module.ALGORITHM.__name__ for module in modules]\n"
        "print(*found, *{'torch', 'numpy'} & sys.modules.keys())"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [CLASSES[name].__name__ for name in ALGORITHMS]
    assert CLASSES.keys() == ALGORITHMS.keys()
