"""Every lever changes memory and time, and no number: three updates against one process's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from engine.config.layout import LayoutConfig
from tools.benchmarks.parity.compare import compare
from tools.benchmarks.parity.models import MODELS
from tools.benchmarks.parity.updates import LOSSES, three_updates
from tools.benchmarks.rank_pool import RankPool

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
    ("moe gqa", {"processes": 2, "ep": 2}, {**OVERLAP, "dispatcher": "allgather"}),
]


@pytest.fixture(scope="module")
def updates() -> Iterator[Any]:
    """Three updates of each kind; plain ones are computed once."""
    with RankPool(4) as pool:

        def run(model: str, layout: dict[str, int], levers: dict[str, Any]) -> Any:
            given = {"model": MODELS[model], "kinds": list(LOSSES), "levers": levers}
            return pool.run(three_updates, LayoutConfig(**layout), **given)[0]

        plain = cache(lambda model: run(model, ONE, {}))
        yield lambda model, layout, levers: (plain(model), run(model, layout, levers))


@pytest.mark.slow
@pytest.mark.parametrize(("model", "layout", "levers"), CASES)
def test_a_lever_changes_no_number(updates, model, layout, levers):
    expected, found = updates(model, layout, levers)
    for kind in LOSSES:
        difference = compare(expected["before"].weights, expected[kind], found[kind])
        assert difference.holds, f"{kind}: {difference}"
        if layout == ONE and levers["recompute"] == "full":
            assert difference.weight == 0, "the same products in the same order"
        if "mla" in model:
            assert difference.bias_moved > 0, "tokens were counted, and compared above"
