"""The k3 estimator: its expectation, its sign, its gradient, its precision."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.algorithms.kl import k3


def _two_models(vocabulary: int = 11) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, vocabulary, generator=generator, dtype=torch.float64)
    policy, reference = torch.log_softmax(logits, -1)
    return policy, reference


def test_hand_computed_value() -> None:
    value = k3(torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)]))
    torch.testing.assert_close(value, torch.tensor([0.5 + math.log(2.0) - 1.0]))


def test_expectation_under_the_policy_is_the_kl_divergence() -> None:
    policy, reference = _two_models()
    exact = (policy.exp() * (policy - reference)).sum()
    torch.testing.assert_close((policy.exp() * k3(policy, reference)).sum(), exact)


def test_never_negative_and_zero_where_both_agree() -> None:
    policy, reference = _two_models()
    assert (k3(policy, reference) > 0).all()
    assert k3(policy, policy).abs().max() == 0


def test_gradient_is_one_minus_the_ratio() -> None:
    policy, reference = _two_models()
    policy.requires_grad_()
    reference.requires_grad_()
    k3(policy, reference).sum().backward()
    torch.testing.assert_close(policy.grad, 1.0 - torch.exp(reference - policy).detach())
    assert reference.grad is None


def test_a_policy_far_from_the_reference_has_a_finite_estimate() -> None:
    logp = torch.tensor([-100.0, -1.0, -21.0, -1.0], requires_grad=True)
    reference = torch.tensor([-1.0, -100.0, -1.5, -20.0])
    value = k3(logp, reference)
    value.sum().backward()
    assert value.isfinite().all() and logp.grad is not None and logp.grad.isfinite().all()
    log_ratio = reference - logp.detach()
    exact = log_ratio.expm1() - log_ratio
    assert torch.equal(value[1:], exact[1:])  # up to a log-ratio of 20 nothing changes
    # Beyond, the tangent goes on: its slope is the pull back to the reference.
    slope = math.expm1(20)
    assert value[0].item() == pytest.approx(slope - 20 + slope * (99 - 20))
    assert logp.grad[0].item() == pytest.approx(-slope)
    # However far the policy is above the reference, the gradient still leads back.
    assert logp.grad[1] == 1.0


@given(
    st.lists(st.integers(-(10**7), 10**7), min_size=2, max_size=20, unique=True),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_finite_convex_and_rising_away_from_agreement(gaps: list[int], dtype: torch.dtype):
    log_ratio = torch.tensor(sorted(gaps), dtype=dtype) / 1000
    logp = (-log_ratio).requires_grad_()
    value = k3(logp, torch.zeros_like(logp))
    (gradient,) = torch.autograd.grad(value.sum(), logp)
    assert value.isfinite().all() and gradient.isfinite().all() and (value >= 0).all()
    slope = -gradient  # by the log-ratio
    assert (slope.diff() >= 0).all()
    assert torch.equal(slope.sign(), log_ratio.sign())
    near = log_ratio <= 20
    exact = log_ratio.expm1() - log_ratio
    torch.testing.assert_close(value[near], exact[near])


def test_infinitely_far_above_the_reference_is_infinite_and_nan_stays_nan() -> None:
    value = k3(torch.tensor([0.0, math.nan]), torch.tensor([-math.inf, 0.0]))
    assert value[0] == math.inf and value[1].isnan()


def test_small_differences_survive_float32() -> None:
    logp = torch.tensor([-1.0])
    reference = torch.tensor([-1.0 + 2.0**-10])
    step = 2.0**-10
    exact = math.expm1(step) - step
    assert abs(k3(logp, reference).item() / exact - 1.0) < 1e-3
