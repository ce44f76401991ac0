"""The GRPO loss against a naive float64 loop over samples and tokens, in value and gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.algorithms.algorithm import BatchSizes
from engine.algorithms.grpo import Grpo

CLIP, BETA = 0.2, 0.04
GRPO = Grpo(clip_low=CLIP, clip_high=CLIP, kl_coefficient=BETA)


@dataclass
class Tokens:
    """A row of tokens, as the loss asks for it."""

    old_logp: Tensor
    reference_logp: Tensor
    advantages: Tensor
    weights: Tensor

    def sample_mean(self, values: Tensor) -> Tensor:
        raise NotImplementedError("GRPO's ratios are those of tokens")


def loss_of(logp: Tensor, row: Tokens, algorithm: Grpo = GRPO) -> tuple[Tensor, dict[str, Tensor]]:
    return algorithm.loss(logp, torch.zeros_like(logp), row)


@dataclass
class Case:
    """Samples' response tokens, one after another: the naive loop's and the loss's view of them."""

    lengths: list[int]
    logp: Tensor
    old: Tensor
    reference: Tensor
    advantage: list[float]

    def per_token(self) -> tuple[Tensor, Tensor]:
        """Return (advantages, weights), each [T]."""
        lengths = torch.tensor(self.lengths)
        sizes = BatchSizes(len(self.lengths), sum(self.lengths), minibatches=1, max_length=9)
        weights = torch.tensor(GRPO.token_weights(self.lengths, sizes), dtype=torch.float64)
        spread = torch.tensor(self.advantage, dtype=torch.float64)
        return spread.repeat_interleave(lengths), weights.repeat_interleave(lengths)


def make_case(lengths: list[int], seed: int) -> Case:
    generator = torch.Generator().manual_seed(seed)

    def noise(size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    old = -noise(sum(lengths)).abs()
    return Case(
        lengths,
        logp=old + 0.3 * noise(len(old)),
        old=old,
        reference=old + 0.5 * noise(len(old)),
        advantage=noise(len(lengths)).tolist(),
    )


def naive(case: Case, logp: Tensor) -> tuple[Tensor, dict[str, float]]:
    """The objective as the paper writes it: no vectors, no masks, one token at a time."""
    objective = torch.zeros((), dtype=torch.float64)
    clipped = ratio_mean = kl_mean = 0.0
    start = 0
    for length, advantage in zip(case.lengths, case.advantage, strict=True):
        of_sample = torch.zeros((), dtype=torch.float64)
        for t in range(start, start + length):
            ratio = torch.exp(logp[t]) / torch.exp(case.old[t])
            bounded = ratio.clamp(1 - CLIP, 1 + CLIP)
            against = torch.exp(case.reference[t]) / torch.exp(logp[t])
            kl = against - torch.log(against) - 1
            of_sample = of_sample + min(ratio * advantage, bounded * advantage) - BETA * kl
            share = 1.0 / (length * len(case.lengths))
            stopped = ratio > 1 + CLIP if advantage > 0 else ratio < 1 - CLIP
            clipped += share * bool(stopped)
            ratio_mean += share * ratio.item()
            kl_mean += share * kl.item()
        objective = objective + of_sample / length
        start += length
    metrics = {"clip_fraction": clipped, "ratio": ratio_mean, "kl": kl_mean}
    return -objective / len(case.lengths), metrics


def engine(case: Case, logp: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    advantages, weights = case.per_token()
    return loss_of(logp, Tokens(case.old, case.reference, advantages, weights))


@settings(max_examples=60)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 10_000))
def test_loss_metrics_and_gradient_equal_the_naive_loop(lengths: list[int], seed: int) -> None:
    case = make_case(lengths, seed)
    ours, theirs = (case.logp.clone().requires_grad_() for _ in range(2))
    loss, metrics = engine(case, ours)
    expected, expected_metrics = naive(case, theirs)
    loss.backward()
    expected.backward()
    close = {"rtol": 1e-6, "atol": 1e-7}
    torch.testing.assert_close(loss, expected, **close)
    torch.testing.assert_close(ours.grad, theirs.grad, **close)
    for name, value in expected_metrics.items():
        assert metrics[name].item() == pytest.approx(value, rel=1e-6, abs=1e-7), name
    assert metrics["loss"].item() == loss.item()
    parts = metrics["policy_loss"] + BETA * metrics["kl"]
    torch.testing.assert_close(metrics["loss"], parts)


def test_hand_computed_values() -> None:
    # Two samples of 1 and 2 tokens. Ratios 1.5 (clipped at 1.2, A = 1), 0.5 (clipped at 0.8,
    # A = -2) and 1.5 (A = -2: not clipped, the min keeps the worse one); reference = policy.
    logp = torch.log(torch.tensor([0.6, 0.2, 0.6])).requires_grad_()
    old = torch.log(torch.tensor([0.4, 0.4, 0.4]))
    advantages = torch.tensor([1.0, -2.0, -2.0])
    weights = torch.tensor([0.5, 0.25, 0.25])
    algorithm = Grpo(clip_low=0.2, clip_high=0.2, kl_coefficient=0.1)
    loss, metrics = loss_of(logp, Tokens(old, logp.detach(), advantages, weights), algorithm)
    loss.backward()
    torch.testing.assert_close(loss, torch.tensor(0.5 * -1.2 + 0.25 * 1.6 + 0.25 * 3.0))
    torch.testing.assert_close(logp.grad, torch.tensor([0.0, 0.0, 0.25 * 2.0 * 1.5]))
    assert metrics["clip_fraction"].item() == pytest.approx(0.75)
    assert metrics["ratio"].item() == pytest.approx(0.5 * 1.5 + 0.25 * 0.5 + 0.25 * 1.5)
    assert metrics["kl"].item() == 0.0


def test_on_policy_gradient_is_the_policy_gradient() -> None:
    case = make_case([3, 1, 4], seed=5)
    case.logp = case.reference = case.old
    logp = case.logp.clone().requires_grad_()
    engine(case, logp)[0].backward()
    advantages, weights = case.per_token()
    torch.testing.assert_close(logp.grad, -advantages * weights)


@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf])
def test_tokens_of_weight_zero_contribute_nothing_whatever_stands_there(junk: float) -> None:
    case = make_case([2, 3], seed=1)
    advantages, weights = case.per_token()
    hole = torch.full((4,), junk, dtype=torch.float64)

    def padded(x: Tensor, filler: Tensor = hole) -> Tensor:
        return torch.cat([filler[:1], x[:2], filler[1:3], x[2:], filler[3:]])

    inner = case.logp.clone().requires_grad_()
    outer = padded(case.logp).requires_grad_()
    loss, metrics = engine(case, inner)
    loss.backward()
    row = Tokens(
        padded(case.old),
        padded(case.reference),
        padded(advantages),
        padded(weights, torch.zeros_like(hole)),
    )
    padded_loss, padded_metrics = loss_of(outer, row)
    padded_loss.backward()
    torch.testing.assert_close(padded_loss, loss)
    torch.testing.assert_close(outer.grad, padded(inner.grad, torch.zeros_like(hole)))
    for name, value in metrics.items():
        torch.testing.assert_close(padded_metrics[name], value)


def test_microbatches_add_up_to_the_minibatch() -> None:
    case = make_case([5, 2, 4, 3], seed=9)
    advantages, weights = case.per_token()
    whole_logp = case.logp.clone().requires_grad_()
    loss, metrics = engine(case, whole_logp)
    loss.backward()
    logp = case.logp.clone().requires_grad_()
    total: dict[str, float] = dict.fromkeys(metrics, 0.0)
    for part in (slice(0, 7), slice(7, 14)):
        row = Tokens(case.old[part], case.reference[part], advantages[part], weights[part])
        piece, values = loss_of(logp[part], row)
        piece.backward()
        total = {name: total[name] + values[name].item() for name in values}
    torch.testing.assert_close(logp.grad, whole_logp.grad)
    for name, value in metrics.items():
        assert total[name] == pytest.approx(value.item()), name


def test_groups_of_advantage_zero_get_no_policy_gradient() -> None:
    case = make_case([2, 2], seed=2)
    case.advantage = [0.0, 0.0]
    advantages, weights = case.per_token()
    logp = case.logp.clone().requires_grad_()
    row = Tokens(case.old, case.reference, advantages, weights)
    loss, _ = loss_of(logp, row, Grpo(kl_coefficient=0.0))
    loss.backward()
    assert logp.grad is not None
    assert logp.grad.abs().max() == 0
