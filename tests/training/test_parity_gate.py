"""The parity gate finds the worst token and names it; only routing ties are left out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RunError
from engine.models.router import group_limited_top_k
from engine.training.divergence import Diverged
from engine.training.parity import Comparison, Mismatch, behind_ties, compare, hold
from engine.training.routing_margin import margin


def all_compared(tensor):
    return torch.zeros(len(tensor), dtype=torch.bool)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.randoms())
def test_the_worst_token_is_found_wherever_it_is(sizes, random):
    trainer = [torch.zeros(size) for size in sizes]
    sampler = [torch.full((size,), 1e-6) for size in sizes]
    places = [(s, p) for s, size in enumerate(sizes) for p in range(size)]
    if places:
        sample, position = random.choice(places)
        sampler[sample][position] = -0.5
    found = [
        compare(f"sample {number}", ours, theirs, all_compared(ours))
        for number, (ours, theirs) in enumerate(zip(trainer, sampler, strict=True))
    ]
    total = sum(found, Comparison())
    assert (total.compared, total.left_out) == (sum(sizes), 0)
    if not places:
        assert total.worst == Mismatch()
        return
    assert (total.worst.sample, total.worst.position) == (f"sample {sample}", position)
    assert total.worst.difference == total.worst.trainer - total.worst.sampler == 0.5


def one_token(trainer, sampler, left_out=False):
    return compare(
        "sample 2 of prompt 7+1",
        torch.tensor([trainer]),
        torch.tensor([sampler]),
        torch.tensor([left_out]),
    )


def test_within_the_limit_nothing_happens():
    hold(one_token(-1.0, -1.00005).worst, 1e-4, version=3)


def test_above_the_limit_the_run_stops_with_names_and_numbers():
    with pytest.raises(RunError) as stopped:
        hold(one_token(-1.0, -1.5).worst, 1e-4, version=3)
    for part in ("version 3", "token 0 of sample 2 of prompt 7+1", "-1.000000", "-1.500000"):
        assert part in str(stopped.value)
    assert "parity.max_logprob_difference = 1.0e-04" in str(stopped.value)


def test_nan_never_passes():
    with pytest.raises(RunError):
        hold(one_token(float("nan"), -1.0).worst, 1e9, version=0)


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("left_out", [False, True])
def test_what_is_not_finite_stops_the_run_behind_ties_too_and_says_whose_it_is(odd, left_out):
    with pytest.raises(Diverged, match=r"policy at weight version 3 gives response token 0"):
        hold(one_token(odd, -1.0, left_out).worst, 1e9, version=3)
    with pytest.raises(Diverged):
        hold(one_token(odd, odd, left_out).worst, 1e9, version=3)
    with pytest.raises(RunError, match=r"servers computed no finite log-probability") as stopped:
        hold(one_token(-1.0, odd, left_out).worst, 1e9, version=3)
    assert not isinstance(stopped.value, Diverged)


@given(st.lists(st.sampled_from([0.0, 1e-9, float("nan")]), min_size=1), st.data())
def test_one_token_that_is_not_finite_is_the_worst_of_all(offsets, data):
    ties = data.draw(st.lists(st.booleans(), min_size=len(offsets), max_size=len(offsets)))
    sampler = torch.full((len(offsets),), -1.0)
    found = compare("a sample", sampler + torch.tensor(offsets), sampler, torch.tensor(ties))
    total = Comparison() + found + one_token(-1.0, -1.0)
    odd = any(offset != offset for offset in offsets)
    assert (total.worst.difference == float("inf")) == odd


def test_what_is_left_out_is_counted_and_never_the_worst():
    found = one_token(-1.0, -9.0, left_out=True)
    assert found == Comparison(Mismatch(), compared=0, left_out=1)


def test_a_tie_leaves_out_the_rest_of_its_own_sample_only():
    margins = torch.tensor([1.0, 1e-7, 1.0, 1.0, 1.0, 1e-7])
    bounds = torch.tensor([0, 3, 5, 6])
    assert behind_ties(margins, bounds, tie=1e-4).tolist() == [
        False,
        True,
        True,
        False,
        False,
        True,
    ]
    assert not behind_ties(margins, bounds, tie=0.0).any()


def test_the_margin_is_between_the_last_chosen_and_the_first_left_out():
    scores = torch.tensor([[3.0, 1.0, 2.0, 0.5]])
    assert margin(scores, 2).item() == 1.0
    assert margin(scores, 4).item() == float("inf")
    # of two groups one is kept: 3 + 1 against 2 + 0.5 counts, and within it nothing is left out
    assert margin(scores, 2, groups=2, kept=1).item() == 1.5


@given(
    seed=st.integers(0, 10_000),
    groups=st.sampled_from([1, 2, 4]),
    kept=st.integers(1, 4),
    by=st.integers(1, 2),
    data=st.data(),
)
def test_a_change_within_the_margin_never_changes_the_choice(
    seed: int, groups: int, kept: int, by: int, data: st.DataObject
):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(5, 8, generator=generator, dtype=torch.float64)
    kept = min(kept, groups)
    topk = data.draw(st.integers(1, 8 * kept // groups))
    # a group's worth is the sum of up to two scores, and two groups are compared: a quarter is safe
    bound = margin(scores, topk, groups, kept, by=by).clamp(max=10.0)[:, None] / 4
    noise = (torch.rand(scores.shape, generator=generator, dtype=torch.float64) - 0.5) * 2
    chosen, again = (
        group_limited_top_k(s, topk, groups, kept, by=by).sort(-1).values
        for s in (scores, scores + 0.99 * bound * noise)
    )
    assert torch.equal(chosen, again)
