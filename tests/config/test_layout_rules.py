"""Impossible layouts get the nearest possible one; layers fill the stages."""

from dataclasses import astuple
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import layouts

from engine.config.layout import LayoutConfig
from engine.config.layout_rules import Sizes, fills, nearest, nearest_processes, proposal
from engine.config.model_fit import check_fit
from engine.config.model_sizes import ModelSizes, model_sizes
from engine.config.stages import stage_layers

DEEPSEEK_V3 = {
    "num_hidden_layers": 61,
    "vocab_size": 129280,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "kv_lora_rank": 512,
    "intermediate_size": 18432,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "moe_intermediate_size": 2048,
    "num_nextn_predict_layers": 1,
}

few = st.integers(1, 6)
sizes = st.builds(Sizes, few, few, st.integers(1, 2), few, few, few)


@given(st.integers(1, 32), sizes)
def test_the_nearest_layout_is_possible_and_a_possible_one_stays(processes: int, wanted: Sizes):
    found = nearest(processes, wanted)
    assert fills(processes, found)
    if fills(processes, wanted):
        assert found == wanted
        assert proposal(processes, wanted) == ""
    for name in Sizes.__dataclass_fields__:
        if getattr(wanted, name) == 1:
            assert getattr(found, name) == 1, f"{name} was not asked for"


@given(layouts())
def test_every_sound_layout_is_accepted_and_its_copies_fill_the_processes(layout: dict):
    config = LayoutConfig.model_validate(layout)
    assert fills(config.processes, config.sizes)
    assert config.dp * config.tp * config.pp * config.cp == config.processes
    assert config.expert_dp * config.etp * config.ep * config.pp == config.processes


@given(layouts(), st.integers(0, 5), st.integers(2, 7))
def test_one_wrong_dimension_is_refused_exactly_where_it_does_not_fill(layout, which, value):
    name = list(Sizes.__dataclass_fields__)[which]
    changed = {**layout, name: value}
    wanted = Sizes(**{key: value for key, value in changed.items() if key != "processes"})
    if fills(layout["processes"], wanted):
        LayoutConfig.model_validate(changed)
    else:
        with pytest.raises(ValueError, match="nearest possible: "):
            LayoutConfig.model_validate(changed)


@given(layouts())
def test_auto_shares_the_experts_among_all_processes_of_a_stage(layout: dict):
    config = LayoutConfig.model_validate({**layout, "ep": "auto", "etp": 1})
    assert config.ep == config.processes // config.pp
    assert LayoutConfig.model_validate(config.model_dump()) == config


@pytest.mark.parametrize(("processes", "needed", "found"), [(6, 4, 8), (2, 4, 4), (9, 4, 8)])
def test_nearest_processes(processes: int, needed: int, found: int):
    assert nearest_processes(processes, needed) == found


@given(st.integers(1, 100), st.integers(1, 12))
def test_layers_fill_the_stages_in_order_and_evenly(layers: int, stages: int):
    if layers < stages:
        with pytest.raises(ValueError, match="fewer layers than stages"):
            stage_layers(layers, stages)
        return
    found = stage_layers(layers, stages)
    assert [layer for stage in found for layer in stage] == list(range(layers))
    counts = [len(stage) for stage in found]
    assert max(counts) - min(counts) <= 1
    if stages > 2:  # the ends carry embedding and output layer: they get no extra layer first
        assert counts[0] <= max(counts[1:-1]) and counts[-1] <= max(counts[1:-1])


@given(st.integers(1, 60), st.integers(1, 8), st.integers(0, 9), st.integers(0, 9))
def test_uneven_ends_are_as_asked(layers: int, stages: int, first: int, last: int):
    try:
        found = stage_layers(layers, stages, first, last)
    except ValueError as refused:
        assert "in the first and" in str(refused)
        return
    assert len(found[0]) == first if stages > 1 else len(found[0]) == layers
    assert len(found[-1]) == last
    assert all(a.stop == b.start for a, b in pairwise(found))


def test_deepseek_v3_fits_the_papers_layout():
    layout = LayoutConfig(processes=2048, pp=16, ep=64, first_stage_layers=3, last_stage_layers=2)
    check_fit(model_sizes(DEEPSEEK_V3), layout)
    found = stage_layers(61, 16, 3, 2)
    assert [len(stage) for stage in found] == [3] + [4] * 14 + [2]


@pytest.mark.parametrize(
    ("model", "layout", "said"),
    [
        (DEEPSEEK_V3, {"processes": 6, "tp": 6}, "128 attention heads, found 6"),
        (DEEPSEEK_V3, {"processes": 6, "ep": 6}, "256 experts, found 6; nearest possible: ep=2"),
        (
            {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4},
            {"processes": 2, "ep": 2},
            "expected ep = 1 for a model without experts, found 2; nearest possible: ep=1",
        ),
        (
            {"num_hidden_layers": 4, "num_attention_heads": 12, "num_key_value_heads": 4},
            {"processes": 6, "tp": 6},
            "expected tp to divide or be a multiple of 4 key/value heads, found 6",
        ),
        (
            {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 4},
            {"processes": 2, "pp": 2, "vpp": 2},
            "at most the model's 3 layers, found 4; nearest possible: vpp=1",
        ),
    ],
)
def test_a_model_that_cannot_be_cut_so_gets_a_proposal(model: dict, layout: dict, said: str):
    with pytest.raises(ValueError, match="expected") as refused:
        check_fit(model_sizes(model), LayoutConfig(**layout))
    assert said in str(refused.value)


@given(layouts())
@settings(max_examples=25)  # each looks through up to 100,000 layouts
def test_every_proposal_fits_the_model(layout: dict):
    model = ModelSizes(layers=4, vocabulary=48, heads=8, groups=4, columns=64, experts=6)
    try:
        check_fit(model, LayoutConfig(**layout))
    except ValueError as refused:
        change = str(refused).partition("nearest possible: ")[2]
        if change:  # uneven stages propose nothing
            changes = {k: int(v) for k, v in (part.split("=") for part in change.split())}
            check_fit(model, LayoutConfig(**{**layout, **changes}))


def test_sizes_are_named_in_the_order_they_are_stored():
    assert astuple(Sizes(1, 2, 3, 4, 5, 6)) == (1, 2, 3, 4, 5, 6)
