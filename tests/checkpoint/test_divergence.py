"""What is not finite is not stepped, on any rank; and the last good checkpoint stays."""

from __future__ import annotations

from typing import Any

import pytest
from checkpointed_models import EVERY_KIND, MIXTURE
from pool_case import live

from engine.config.layout import LayoutConfig

pytestmark = pytest.mark.slow

LAYOUTS = {
    "one": LayoutConfig(processes=1),
    "ep2": LayoutConfig(processes=2, ep=2),
    "pp2": LayoutConfig(processes=2, pp=2),
}
OVERLAP = {"overlap_grad_reduce": True, "overlap_param_gather": True, "bucket_parameters": 3000}


def same_on_all(answers: list[Any]) -> Any:
    assert all(answer == answers[0] for answer in answers), answers
    return answers[0]


@pytest.mark.parametrize("layout", ["ep2", "pp2"])
@pytest.mark.parametrize(
    ("loss", "parts"),
    [
        ("nan on one rank", ["its loss is not finite (loss nan", "optimizer.lr"]),
        (
            "the gradient alone",
            ["norm of its gradient is nan", "gradient of output_layer.weight, ", " more"],
        ),
        ("squares beyond float32", ["norm of its gradient is inf", "float32"]),
        ("a loss that tells nothing", ["its loss is not finite (loss inf"]),
    ],
)
def test_an_update_that_is_not_finite_is_made_on_no_rank(pool, layout, loss, parts):
    what = {"what": "diverging.refuse", "model": MIXTURE, "loss": loss}
    (said, start_is_good), unchanged = same_on_all(pool.run(live, LAYOUTS[layout], **what))
    assert unchanged and not start_is_good
    assert said.startswith("training diverged at step 5, minibatch 0: ")
    for part in parts:
        assert part in said


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_an_update_that_makes_unusable_weights_ends_the_run_at_once(pool, layout):
    """Whether the weights overflow themselves, or only what is computed of them."""
    rates = [1e30, 1e15, 1e9, 1e5, 0.1]
    what = {"what": "diverging.step_too_far", "model": MIXTURE, "rates": rates}
    *refused, fine = same_on_all(pool.run(live, LAYOUTS[layout], **what))
    assert fine is None
    for rate, told in zip(rates, refused, strict=False):
        assert told is not None, rate
        said, start_is_good = told
        assert start_is_good and f"learning rate of {rate:g} made weights" in said
        assert said.startswith("training diverged at step 5, minibatch 0: its gradient was finite")


@pytest.mark.parametrize("options", [{}, OVERLAP], ids=["plain", "overlap"])
@pytest.mark.parametrize("layout", ["ep2", "pp2"])
def test_a_second_look_changes_nothing(pool, layout, options):
    """Neither weights nor what is counted while they are computed: expert loads, router biases."""
    what = {"what": "diverging.look_twice", "model": EVERY_KIND, "options": options}
    assert pool.run(live, LAYOUTS[layout], **what) == [(True, True)] * 2


@pytest.mark.parametrize("options", [{}, OVERLAP], ids=["plain", "overlap"])
def test_a_spike_is_skipped_on_all_ranks_as_if_it_had_not_been(pool, options):
    what = {"what": "diverging.skip", "model": MIXTURE, "options": options}
    assert pool.run(live, LAYOUTS["ep2"], **what) == [(1, True, True)] * 2


@pytest.mark.parametrize("asynchronous", [True, False])
def test_the_last_good_checkpoint_stays_until_there_is_a_better_one(pool, tmp_path, asynchronous):
    what = {"what": "diverging.keep_the_last_good_one", "model": MIXTURE, "folder": tmp_path}
    left = same_on_all(pool.run(live, LAYOUTS["ep2"], **what, asynchronous=asynchronous))
    assert left == [[3], *([] if asynchronous else [[3, 4]]), [3], [5], [5, 6], [5]]
