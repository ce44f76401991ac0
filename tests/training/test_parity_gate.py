"""The parity gate finds the worst token and names it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RunError
from engine.training.parity import NOTHING, hold, worst_of


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.randoms())
def test_the_worst_token_is_found_wherever_it_is(sizes, random):
    trainer = [torch.zeros(size) for size in sizes]
    sampler = [torch.full((size,), 1e-6) for size in sizes]
    places = [(s, p) for s, size in enumerate(sizes) for p in range(size)]
    if not places:
        assert worst_of([""] * len(sizes), trainer, sampler) == NOTHING
        return
    sample, position = random.choice(places)
    sampler[sample][position] = -0.5
    worst = worst_of([f"sample {s}" for s in range(len(sizes))], trainer, sampler)
    assert (worst.sample, worst.position) == (f"sample {sample}", position)
    assert worst.difference == worst.trainer - worst.sampler == 0.5


def test_within_the_limit_nothing_happens():
    worst = worst_of(["a"], [torch.tensor([-1.0])], [torch.tensor([-1.00005])])
    hold(worst, 1e-4, version=3)


def test_above_the_limit_the_run_stops_with_names_and_numbers():
    worst = worst_of(["sample 2 of prompt 7+1"], [torch.tensor([-1.0])], [torch.tensor([-1.5])])
    with pytest.raises(RunError) as stopped:
        hold(worst, 1e-4, version=3)
    for part in ("version 3", "token 0 of sample 2 of prompt 7+1", "-1.000000", "-1.500000"):
        assert part in str(stopped.value)
    assert "parity.max_logprob_difference = 1.0e-04" in str(stopped.value)


def test_nan_never_passes():
    worst = worst_of(["a"], [torch.tensor([float("nan")])], [torch.tensor([-1.0])])
    with pytest.raises(RunError):
        hold(worst, 1e9, version=0)
