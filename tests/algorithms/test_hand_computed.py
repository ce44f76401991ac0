"""Each algorithm on a few tokens, with the numbers of its paper's formula worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from engine.algorithms.algorithm import Algorithm, BatchSizes
from engine.algorithms.cispo import Cispo
from engine.algorithms.dapo import Dapo
from engine.algorithms.dr_grpo import DrGrpo
from engine.algorithms.grpo import Grpo
from engine.algorithms.gspo import Gspo
from engine.algorithms.reinforce_plus_plus import ReinforcePlusPlus
from engine.algorithms.rloo import Rloo

SIZES = BatchSizes(samples=4, tokens=40, minibatches=2, max_length=50)
GROUPS = torch.tensor([0, 0, 1, 1, 0, 0])
REWARDS = torch.tensor([0.0, 4.0, 1.0, 1.0, 0.0, 4.0], dtype=torch.float64)


@dataclass
class Tokens:
    """A row of response tokens only; samples of equal length follow one another."""

    ratios: list[float]
    advantages: Tensor
    weights: Tensor
    sample_length: int = 1

    def __post_init__(self) -> None:
        self.old_logp = torch.full((len(self.ratios),), -1.0)
        self.reference_logp = None
        self.logp = (self.old_logp + torch.tensor(self.ratios).log()).requires_grad_()

    def sample_mean(self, values: Tensor) -> Tensor:
        means = values.reshape(-1, self.sample_length).mean(1)
        return means.repeat_interleave(self.sample_length)


def lost(algorithm: Algorithm, row: Tokens) -> tuple[float, list[float], float]:
    """Loss, gradient and clip fraction."""
    loss, metrics = algorithm.loss(row.logp, torch.zeros_like(row.logp), row)
    (gradient,) = torch.autograd.grad(loss, row.logp)
    return loss.item(), gradient.tolist(), metrics["clip_fraction"].item()


def ones(count: int) -> Tensor:
    return torch.ones(count)


def test_grpo():
    # Group 0: mean 2, population std 2; group 1 is equal.
    assert Grpo().advantages(REWARDS, GROUPS).tolist() == [-1, 1, 0, 0, -1, 1]
    assert Grpo().token_weights([5, 20, 0], SIZES) == [2 / (4 * 5), 2 / (4 * 20), 0]
    row = Tokens([1.5, 0.5, 1.5, 0.5], torch.tensor([1.0, 1.0, -1.0, -1.0]), ones(4))
    loss, gradient, clipped = lost(Grpo(kl_coefficient=0.0), row)
    assert loss == pytest.approx(-1.2 - 0.5 + 1.5 + 0.8)
    assert gradient == pytest.approx([0.0, -0.5, 1.5, 0.0])
    assert clipped == 2.0


def test_grpo_with_epsilon_ten_bounds_ratios_from_above_only():
    row = Tokens([1e-6, 1e-6, 10.9, 11.5, 11.5], torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0]), ones(5))
    _, gradient, clipped = lost(Grpo(kl_coefficient=0.0, clip_low=10.0, clip_high=10.0), row)
    assert gradient == pytest.approx([-1e-6, 1e-6, -10.9, 0.0, 11.5])
    assert clipped == 1.0


@pytest.mark.parametrize("algorithm", [Grpo, Dapo, DrGrpo, Rloo, ReinforcePlusPlus])
def test_clip_low_of_one_bounds_nothing_from_below(algorithm: type[Algorithm]):
    row = Tokens([1e-6], torch.tensor([-1.0]), ones(1))
    for clip_low in (1.0, 1.5):
        options = {"clip_low": clip_low, "kl_coefficient": 0.0}
        _, gradient, clipped = lost(algorithm.model_validate(options), row)
        assert gradient == pytest.approx([1e-6])
        assert clipped == 0.0


def test_dapo():
    assert Dapo().advantages(REWARDS, GROUPS).tolist() == [-1, 1, 0, 0, -1, 1]
    assert Dapo().token_weights([5, 20], SIZES) == [2 / 40, 2 / 40]
    # Clip-higher: 1.25 would be clipped by GRPO; below, the bound is GRPO's.
    row = Tokens([1.25, 1.3, 0.7], torch.tensor([1.0, 1.0, -1.0]), ones(3))
    loss, gradient, clipped = lost(Dapo(), row)
    assert loss == pytest.approx(-1.25 - 1.28 + 0.8)
    assert gradient == pytest.approx([-1.25, 0.0, 0.0])
    assert clipped == 2.0
    assert not Dapo().uses_reference


def test_dapo_accepts_groups_whose_rewards_differ():
    assert Dapo().accepts(torch.tensor([0.0, 0.0, 1.0]))
    assert not Dapo().accepts(torch.tensor([0.1, 0.1, 0.1]))
    assert not Dapo().accepts(torch.tensor([1.0]))
    for other in (Grpo(), DrGrpo(), Gspo(), Cispo(), Rloo(), ReinforcePlusPlus()):
        assert other.accepts(torch.tensor([1.0, 1.0]))


def test_dapo_soft_overlong_punishment():
    # The paper's numbers: L_max = 20480, L_cache = 4096, so nothing up to 16384 tokens.
    lengths = torch.tensor([1, 16_384, 17_408, 18_432, 20_480, 30_000])
    rewards = torch.tensor([1.0, 1.0, 1.0, -1.0, 1.0, 1.0], dtype=torch.float64)
    shaped = Dapo().shaped_rewards(rewards, lengths, 20_480)
    assert shaped.tolist() == pytest.approx([1.0, 1.0, 0.75, -1.5, 0.0, 0.0])
    assert torch.equal(Dapo(overlong_share=0.0).shaped_rewards(rewards, lengths, 20_480), rewards)
    whole = Dapo(overlong_share=1.0).shaped_rewards(rewards, lengths, 20_480)
    assert whole[3].item() == pytest.approx(-1.9)
    for other in (Grpo(), DrGrpo(), Gspo(), Cispo(), Rloo(), ReinforcePlusPlus()):
        assert torch.equal(other.shaped_rewards(rewards, lengths, 20_480), rewards)


def test_dr_grpo():
    assert DrGrpo().advantages(REWARDS, GROUPS).tolist() == [-2, 2, 0, 0, -2, 2]
    assert DrGrpo().token_weights([5, 20], SIZES) == [2 / (4 * 50), 2 / (4 * 50)]
    row = Tokens([1.5, 0.5], torch.tensor([2.0, 2.0]), torch.tensor([0.01, 0.01]))
    loss, gradient, clipped = lost(DrGrpo(), row)
    assert loss == pytest.approx(0.01 * (-1.2 * 2 - 0.5 * 2))
    assert gradient == pytest.approx([0.0, 0.01 * -0.5 * 2])
    assert clipped == pytest.approx(0.01)


def test_gspo():
    assert Gspo().advantages(REWARDS, GROUPS).tolist() == [-1, 1, 0, 0, -1, 1]
    assert Gspo().token_weights([5, 20], SIZES) == [2 / (4 * 5), 2 / (4 * 20)]
    # Two samples of two tokens: ratios 4 and 1/4 have the geometric mean 1; 1.21 and 1 have 1.1.
    advantages = torch.tensor([1.0, 1.0, 1.0, 1.0])
    weights = torch.full((4,), 1 / (2 * 2))
    row = Tokens([4.0, 0.25, 1.21, 1.0], advantages, weights, sample_length=2)
    loss, gradient, clipped = lost(Gspo(clip_low=0.2, clip_high=0.2), row)
    assert loss == pytest.approx(-(1.0 + 1.1) / 2)
    assert gradient == pytest.approx([-1.0 / 4, -1.0 / 4, -1.1 / 4, -1.1 / 4])
    assert clipped == 0.0
    # With the paper's bounds the second sample is clipped as a whole, at 1 + 4e-4.
    loss, gradient, clipped = lost(Gspo(), row)
    assert loss == pytest.approx(-(1.0 + 1.0004) / 2)
    assert gradient == pytest.approx([-1.0 / 4, -1.0 / 4, 0.0, 0.0])
    assert clipped == pytest.approx(0.5)


def test_cispo():
    assert Cispo().advantages(REWARDS, GROUPS).tolist() == [-1, 1, 0, 0, -1, 1]
    assert Cispo().token_weights([5, 20], SIZES) == [2 / 40, 2 / 40]
    # Weights are bounded at 5, never from below, and every token keeps its gradient.
    row = Tokens([1.0, 8.0, 8.0, 0.001], torch.tensor([1.0, 1.0, -1.0, -1.0]), ones(4))
    loss, gradient, clipped = lost(Cispo(), row)
    assert gradient == pytest.approx([-1.0, -5.0, 5.0, 0.001])
    assert clipped == 2.0
    logps = row.logp.tolist()
    assert loss == pytest.approx(-logps[0] - 5 * logps[1] + 5 * logps[2] + 0.001 * logps[3])
    _, gradient, clipped = lost(Cispo(clip_low=0.2, clip_high=0.2), row)
    assert gradient == pytest.approx([-1.0, -1.2, 1.2, 0.8])
    assert clipped == 3.0


def test_cispo_counts_only_tokens_whose_gradient_the_bound_changed():
    row = Tokens([8.0, 8.0], torch.tensor([0.0, 1.0]), ones(2))
    _, gradient, clipped = lost(Cispo(), row)
    assert gradient == pytest.approx([0.0, -5.0])
    assert clipped == 1.0


def test_rloo():
    # Others of the first sample: 4, 0, 4; of the second: 0, 0, 4.
    a, b = 0 - 8 / 3, 4 - 4 / 3
    assert Rloo().advantages(REWARDS, GROUPS).tolist() == pytest.approx([a, b, 0, 0, a, b])
    assert Rloo().token_weights([5, 20], SIZES) == [2 / 4, 2 / 4]
    alone = Rloo().advantages(torch.tensor([3.0]), torch.tensor([7]))
    assert alone.tolist() == [0.0]


def test_rloo_on_policy_is_the_papers_estimate():
    # 1/k sum_i A_i grad log pi(y_i) with log pi(y_i) the sum over two tokens, k = 2 answers.
    row = Tokens([1.0] * 4, torch.tensor([-3.0, -3.0, 3.0, 3.0]), torch.full((4,), 1 / 2))
    _, gradient, clipped = lost(Rloo(), row)
    assert gradient == pytest.approx([1.5, 1.5, -1.5, -1.5])
    assert clipped == 0.0


def test_reinforce_plus_plus():
    rewards = torch.tensor([0.0, 4.0, 4.0, 4.0, 0.0, 4.0, 4.0, 4.0], dtype=torch.float64)
    groups = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1])
    root = 3**0.5  # mean 3, variance (2 * 9 + 6 * 1) / 8 = 3
    expected = [-3 / root, 1 / root, 1 / root, 1 / root] * 2
    assert ReinforcePlusPlus().advantages(rewards, groups).tolist() == pytest.approx(expected)
    # Less the group's mean: -2, 2, 0, 0, ...; variance (4 * 4) / 8 = 2.
    variant = ReinforcePlusPlus(group_baseline=True)
    root = 2**0.5
    expected = [-2 / root, 2 / root, 0, 0] * 2
    assert variant.advantages(rewards, groups).tolist() == pytest.approx(expected)
    assert ReinforcePlusPlus().token_weights([5, 20], SIZES) == [2 / 40, 2 / 40]
    row = Tokens([1.5, 0.5], torch.tensor([1.0, -1.0]), ones(2))
    loss, gradient, clipped = lost(ReinforcePlusPlus(), row)
    assert loss == pytest.approx(-1.2 + 0.8)
    assert gradient == [0.0, 0.0]
    assert clipped == 2.0
