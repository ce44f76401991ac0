"""The routers choose and weigh as DeepSeek-V3 and V2 do, for any number of groups."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.models.router import expert_weights, group_limited_top_k


@st.composite
def routings(draw):
    size, groups = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    kept = draw(st.integers(1, groups))
    k = draw(st.integers(1, kept * size))
    seed = draw(st.integers(0, 1000))
    scores = torch.rand(5, groups * size, generator=torch.Generator().manual_seed(seed)) - 0.3
    return scores, k, groups, kept


@given(routings(), st.integers(1, 3))
def test_the_choice_is_the_best_of_all_that_use_the_best_groups(routing, by):
    scores, k, groups, kept = routing
    choice = group_limited_top_k(scores, k, groups, kept, by=by)
    for token, chosen in zip(scores, choice, strict=True):
        members = list(token.unflatten(0, (groups, -1)).sort(descending=True).values)
        worth = [float(member[:by].sum()) for member in members]
        best = sorted(range(groups), key=lambda group: -worth[group])[:kept]
        size = len(token) // groups
        allowed = [expert for expert in range(len(token)) if expert // size in best]
        expected = max(
            itertools.combinations(allowed, k), key=lambda c: float(token[list(c)].sum())
        )
        assert sorted(chosen.tolist()) == list(expected)


def test_two_good_experts_make_a_better_group_than_one_very_good_one():
    scores = torch.tensor([[0.9, 0.0, 0.6, 0.5]])
    assert group_limited_top_k(scores, 1, groups=2, kept=1).tolist() == [[2]]
    assert group_limited_top_k(scores, 1, groups=2, kept=1, by=1).tolist() == [[0]]
    assert group_limited_top_k(scores, 1, groups=2, kept=2).tolist() == [[0]]


@pytest.mark.parametrize("k", [1, 3])
def test_weights_add_up_to_the_scale_or_are_the_scores(k):
    scores = torch.rand(6, 8)
    chosen = torch.zeros_like(scores, dtype=torch.bool).scatter(1, scores.topk(k).indices, True)
    normalised = expert_weights(scores, chosen, normalise=True, scale=2.5)
    assert torch.allclose(normalised.sum(-1), torch.tensor(2.5))
    assert torch.equal(normalised > 0, chosen)
    plain = expert_weights(scores, chosen, normalise=False, scale=2.0)
    assert torch.equal(plain[chosen], 2 * scores[chosen]) and plain[~chosen].eq(0).all()
