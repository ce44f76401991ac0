"""The comparison finds whatever differs: nothing is missed, nothing is forgiven."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tools.benchmarks.parity.compare import Outcome, compare

BEFORE = {("a.weight", None): torch.zeros(3, 4), ("b.weight", 1): torch.zeros(5)}
AFTER = {key: tensor + 0.5 for key, tensor in BEFORE.items()}
EXPECTED = Outcome([1.0, 2.0], AFTER)


@given(
    key=st.sampled_from(sorted(BEFORE, key=str)), place=st.integers(0, 4), off=st.floats(1e-4, 1.0)
)
def test_one_wrong_number_is_found_wherever_it_is(key, place, off):
    wrong = {name: tensor.clone() for name, tensor in AFTER.items()}
    wrong[key].view(-1)[place] += off
    found = compare(BEFORE, EXPECTED, Outcome([1.0, 2.0], wrong))
    assert found.where.startswith(key[0])
    assert found.weight == pytest.approx(off / 0.5, rel=1e-3)
    assert found.holds == (found.weight <= 0.01)


def test_a_loss_that_differs_in_any_update_is_found():
    found = compare(BEFORE, EXPECTED, Outcome([1.0, 2.00002], AFTER))
    assert found.loss == pytest.approx(2e-5)
    assert not found.holds


def test_a_missing_tensor_is_named():
    less = {key: tensor for key, tensor in AFTER.items() if key != ("b.weight", 1)}
    with pytest.raises(ValueError, match=r"b\.weight"):
        compare(BEFORE, EXPECTED, Outcome([1.0, 2.0], less))


def test_nan_is_refused():
    broken = {**AFTER, ("b.weight", 1): torch.full((5,), float("nan"))}
    with pytest.raises(ValueError, match="NaN"):
        compare(BEFORE, EXPECTED, Outcome([1.0, 2.0], broken))


def test_a_router_bias_that_stood_still_or_went_elsewhere_is_found():
    before = {**BEFORE, ("router.expert_bias", None): torch.zeros(2)}
    after = {**AFTER, ("router.expert_bias", None): torch.tensor([1e-3, -1e-3])}
    still = {**AFTER, ("router.expert_bias", None): torch.zeros(2)}
    same = compare(before, Outcome([1.0], after), Outcome([1.0], after))
    assert same.holds and same.bias_moved == pytest.approx(1e-3)
    other = compare(before, Outcome([1.0], after), Outcome([1.0], still))
    assert not other.holds and other.where == "router.expert_bias"
