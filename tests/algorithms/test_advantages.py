"""Group-relative advantages against hand-computed values and their stated properties."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.algorithms.advantages import group_advantages, zero_variance_groups
from engine.errors import RunError

REWARDS = st.sampled_from([0.0, 0.1, 1.0, 1.1, 2.0, -0.5])


def test_hand_computed_group() -> None:
    # mean 0.5, population std 0.5; and mean 1, population std sqrt(2/3)
    rewards = torch.tensor([1.0, 0.0, 0.0, 2.0, 1.0, 0.0, 1.0])
    groups = torch.tensor([4, 4, 4, 9, 9, 9, 4])
    root = 1.5**0.5
    expected = torch.tensor([1.0, -1.0, -1.0, root, 0.0, -root, 1.0])
    torch.testing.assert_close(group_advantages(rewards, groups), expected)
    assert zero_variance_groups(rewards, groups) == 0


@pytest.mark.parametrize("value", [0.1, 0.3, 1.1, 1e-30, 3e38])
@pytest.mark.parametrize("size", [1, 3, 7, 16])
def test_equal_rewards_give_exactly_zero(value: float, size: int) -> None:
    rewards = torch.tensor([value] * size + [0.0, 1.0])
    groups = torch.tensor([0] * size + [1, 1])
    advantages = group_advantages(rewards, groups)
    assert advantages[:size].tolist() == [0.0] * size
    assert advantages[size:].tolist() == [-1.0, 1.0]
    assert zero_variance_groups(rewards, groups) == 1


@given(st.lists(st.tuples(REWARDS, st.integers(0, 3)), min_size=1, max_size=24), st.randoms())
def test_zero_mean_unit_square_and_independent_of_order(rows, rng) -> None:
    def by_row(rows):
        rewards = torch.tensor([r for r, _ in rows], dtype=torch.float64)
        return group_advantages(rewards, torch.tensor([g for _, g in rows]))

    advantages = by_row(rows)
    equal = 0
    for group in {g for _, g in rows}:
        own = advantages[torch.tensor([g == group for _, g in rows])]
        assert abs(own.mean().item()) < 1e-9
        if own.abs().sum() > 0:
            assert own.square().mean().item() == pytest.approx(1.0)
        else:
            equal += 1
            assert len({r for r, g in rows if g == group}) == 1
    rewards = torch.tensor([r for r, _ in rows])
    assert equal == zero_variance_groups(rewards, torch.tensor([g for _, g in rows]))

    order = list(range(len(rows)))
    rng.shuffle(order)
    torch.testing.assert_close(by_row([rows[i] for i in order]), advantages[order])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_reward_that_is_no_finite_number_is_refused(bad: float) -> None:
    with pytest.raises(RunError, match=r"sample 1 \(group 7\)"):
        group_advantages(torch.tensor([1.0, bad]), torch.tensor([7, 7]))
