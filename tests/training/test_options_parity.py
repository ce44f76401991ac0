"""Every option changes memory and time, and no number: three updates against one process's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from option_cases import (
    collected_by_an_old_stream,
    expert_modules,
    scored_by_the_reference,
)

from engine.config.layout import LayoutConfig
from tools.benchmarks.parity.compare import compare
from tools.benchmarks.parity.models import MODELS
from tools.benchmarks.parity.updates import LOSSES, three_updates
from tools.benchmarks.rank_pool import RankPool
from tools.benchmarks.training_options import kept_and_seconds

ONE: dict[str, int] = {"processes": 1}
OVERLAP = {
    "overlap_grad_reduce": True,
    "overlap_param_gather": True,
    "bucket_parameters": 3000,  # the largest tensor has 4,608: dozens of buckets
}

CASES: list[tuple[str, dict[str, int], dict[str, Any]]] = [
    ("mla moe mtp", ONE, {"recompute": "full"}),
    ("mla moe mtp", ONE, {"recompute": "full", "recompute_layers": 3}),
    ("mla moe mtp", ONE, {"recompute": "selective"}),
    (
        "mla moe mtp",
        {"processes": 4, "tp": 2, "pp": 2, "ep": 2},
        {
            "recompute": "selective",
            "recompute_modules": ["core_attn", "layernorm", "mla_up_proj", "mlp", "shared_experts"],
        },
    ),
    (
        "mla moe mtp",
        {"processes": 2, "cp": 2},
        {"recompute": "selective", "recompute_modules": ["moe"]},
    ),
    ("mla moe mtp", {"processes": 2}, OVERLAP),
    (
        "mla moe mtp",
        {"processes": 4, "pp": 2, "vpp": 2},
        {**OVERLAP, "recompute": "full"},
    ),
    ("dense", {"processes": 4, "pp": 2}, {**OVERLAP, "recompute": "full"}),
    ("moe gqa", {"processes": 4, "ep": 2, "tp": 2}, {"dispatcher": "allgather"}),
    (
        "moe gqa",
        {"processes": 2, "ep": 2},
        {**OVERLAP, "dispatcher": "allgather", "grouped_experts": True},
    ),
    ("mla moe mtp", {"processes": 2, "etp": 2}, {"grouped_experts": True}),
]


@pytest.fixture(scope="module")
def pool() -> Iterator[RankPool]:
    with RankPool(4) as pool:
        yield pool


@pytest.fixture(scope="module")
def updates(pool: RankPool) -> Any:
    """Three updates of each kind; plain ones are computed once."""

    def run(model: str, layout: dict[str, int], options: dict[str, Any]) -> Any:
        given = {"model": MODELS[model], "kinds": list(LOSSES), "options": options}
        return pool.run(three_updates, LayoutConfig(**layout), **given)[0]

    plain = cache(lambda model: run(model, ONE, {}))
    return lambda model, layout, options: (plain(model), run(model, layout, options))


@pytest.mark.slow
@pytest.mark.parametrize(("model", "layout", "options"), CASES)
def test_an_option_changes_no_number(updates, model, layout, options):
    expected, found = updates(model, layout, options)
    for kind in LOSSES:
        difference = compare(expected["before"].weights, expected[kind], found[kind])
        assert difference.holds, f"{kind}: {difference}"
        if layout == ONE and options.get("recompute") == "full":
            assert difference.weight == 0, "the same products in the same order"
        if "mla" in model:
            assert difference.bias_moved > 0, "tokens were counted, and compared above"


@pytest.mark.slow
def test_weights_are_never_read_while_others_updates_are_on_their_way(pool):
    layout = LayoutConfig(processes=2)
    given = {"model": MODELS["mla moe mtp"], "options": OVERLAP}
    old, new = pool.run(collected_by_an_old_stream, layout, **given)[0]
    assert old.keys() == new.keys()
    assert all(old[key].equal(new[key]) for key in new)


@pytest.mark.slow
def test_a_reference_in_host_memory_scores_as_one_on_the_device(pool):
    layout, model = LayoutConfig(processes=1), MODELS["moe gqa"]
    found = [
        pool.run(scored_by_the_reference, layout, model=model, offload=offload)[0]
        for offload in (False, True)
    ]
    (before, after), (before_hosted, after_hosted) = found
    assert before[0].equal(before_hosted[0])
    assert after[0].equal(after_hosted[0]) and after[0].equal(before[0])


@pytest.mark.slow
def test_experts_are_grouped_where_that_is_asked_for(pool):
    layout, model = LayoutConfig(processes=1), MODELS["moe gqa"]
    for grouped, layers in ((True, 4), (False, 0)):
        options = {"grouped_experts": grouped}
        assert pool.run(expert_modules, layout, model=model, options=options) == [layers]


@pytest.mark.slow
def test_recomputation_keeps_less_for_the_backward_pass(pool):
    def kept(**options: Any) -> int:
        given = {"training_options": options, "rounds": 0}
        return pool.run(kept_and_seconds, LayoutConfig(**ONE), **given)[0][0]

    plain = kept()
    assert kept(recompute="selective") < 0.95 * plain
    assert kept(recompute="full", recompute_layers=4) < kept(recompute="full") < 0.1 * plain
