"""No update with a number that is not finite; the sentence names where, what and why."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RunError
from engine.training.divergence import Diverged, bad_weights, listed
from engine.training.spikes import FEWEST
from engine.training.update_guard import UpdateGuard

ODD = st.sampled_from([math.nan, math.inf, -math.inf])
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def admits(guard, loss=1.0, norm=1.0, *, weights=(), gradients=(), **metrics):
    guard.begin_minibatch()
    return guard.admits(
        loss,
        {"loss": loss, **metrics},
        norm,
        3e-4,
        odd_weights=lambda: list(weights),
        odd_gradients=lambda: list(gradients),
    )


def refusal(*arguments, **options) -> str:
    guard = UpdateGuard(None)
    guard.begin_step(7)
    assert admits(guard) and admits(guard)
    with pytest.raises(Diverged) as stopped:
        admits(guard, *arguments, **options)
    assert isinstance(stopped.value, RunError)
    assert str(stopped.value).startswith("training diverged at step 7, minibatch 2: ")
    return str(stopped.value)


@given(loss=FINITE, norm=st.floats(0, 1e300), kl=FINITE)
def test_finite_numbers_always_pass(loss, norm, kl):
    assert admits(UpdateGuard(None), loss, norm, kl=kl)


@given(odd=ODD, where=st.integers(0, 2))
def test_one_number_that_is_not_finite_is_enough(odd, where):
    numbers = [1.0, 1.0, 1.0]
    numbers[where] = odd
    with pytest.raises(Diverged):
        admits(UpdateGuard(None), numbers[0], numbers[1], kl=numbers[2])


def test_the_parts_of_the_loss_that_are_not_finite_are_named():
    said = refusal(math.inf, kl=math.inf, policy_loss=0.2, entropy=1.5)
    assert "loss inf" in said and "kl inf" in said and "policy_loss" not in said
    assert "reference" in said and "0.0003" in said
    said = refusal(math.nan, policy_loss=math.nan, entropy=math.nan)
    assert "earlier updates were too large" in said and "optimizer.lr" in said


def test_weights_that_are_not_finite_themselves_are_named():
    said = refusal(math.nan, weights=["output_layer.weight"])
    assert "output_layer.weight" in said and "loaded" in said


def test_of_a_gradient_that_is_not_finite_the_weights_are_named():
    names = [f"decoder.layers.{n}.mlp.linear_fc1.weight" for n in range(5)]
    said = refusal(norm=math.nan, gradients=names)
    assert "norm of its gradient is nan" in said and names[0] in said and "and 2 more" in said
    assert "float32" in refusal(norm=math.inf)
    assert listed(names[:3]) == ", ".join(names[:3])


def test_an_update_that_made_unusable_weights_is_told_with_its_rate():
    said = bad_weights(0.5, 12.0, {"the loss": math.nan}, [], rate=1e30)
    assert "1e+30" in said and "the loss nan" in said and "optimizer.lr" in said


def test_weights_that_were_unusable_before_an_update_are_not_blamed_on_its_rate():
    said = bad_weights(0.5, math.inf, {"the norm of the weights": math.inf}, [], rate=3e-4)
    assert "inf before the update already" in said and "folder of the model" in said
    assert "learning rate" not in said


def test_what_a_step_began_with_is_good_once_a_gradient_was_finite():
    guard = UpdateGuard(None)
    guard.begin_step(3)
    with pytest.raises(Diverged) as first:
        admits(guard, math.nan)
    assert admits(guard) and guard.tried
    with pytest.raises(Diverged) as second:
        admits(guard, math.nan)
    assert (first.value.start_is_good, second.value.start_is_good) == (False, True)
    guard.begin_step(4)
    assert not guard.tried


def test_spikes_are_skipped_counted_and_told_once():
    guard = UpdateGuard(5.0)
    assert all(admits(guard) for _ in range(FEWEST))
    guard.begin_step(16)
    assert not admits(guard, norm=8.0)
    assert admits(guard, norm=4.9)
    assert guard.skipped == 1 and guard.tried
    (note,) = guard.take_notes()
    assert "step 16, minibatch 0" in note and "8.0 times" in note
    assert guard.take_notes() == []


def test_without_a_factor_nothing_is_skipped():
    guard = UpdateGuard(None)
    assert all(admits(guard, norm=10.0**n) for n in range(30))
    assert guard.skipped == 0


@given(
    before=st.lists(st.floats(0.1, 100), max_size=90),
    after=st.lists(st.floats(0.1, 100), max_size=40),
)
def test_a_resumed_run_skips_what_the_unbroken_one_skips(before, after):
    unbroken = UpdateGuard(2.0)
    for norm in before:
        admits(unbroken, norm=norm)
    resumed = UpdateGuard(2.0)
    resumed.restore(json.loads(json.dumps(unbroken.state())))
    chosen = [[admits(guard, norm=norm) for norm in after] for guard in (unbroken, resumed)]
    assert chosen[0] == chosen[1]
    assert resumed.state() == unbroken.state()
