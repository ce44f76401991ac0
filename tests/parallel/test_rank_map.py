"""The printed map is the one that megatron's process groups form."""

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from megatron.core.parallel_state import RankGenerator

from engine.config.layout import LayoutConfig
from engine.config.model_sizes import ModelSizes
from engine.parallel.rank_map import LINES_SHOWN, rank_coordinates, rank_map

few = st.sampled_from([1, 2, 3])
MODEL = ModelSizes(layers=12, vocabulary=48, heads=6, experts=18)


@given(few, few, few, few, st.data())
@hypothesis_settings(max_examples=60)
def test_every_rank_stands_where_megatron_puts_it(tp, pp, cp, dp, data):
    stage = tp * cp * dp
    divisors = [size for size in range(1, stage + 1) if stage % size == 0 and 18 % size == 0]
    ep = data.draw(st.sampled_from(divisors))
    etp = data.draw(st.sampled_from([s for s in divisors if stage // ep % s == 0]))
    layout = LayoutConfig(processes=stage * pp, tp=tp, pp=pp, cp=cp, ep=ep, etp=etp)
    found = list(rank_coordinates(layout, MODEL))

    dense = RankGenerator(tp=tp, ep=1, dp=dp, pp=pp, cp=cp, order="tp-cp-ep-dp-pp")
    for name in ("tp", "pp", "cp", "dp"):
        for group in dense.get_ranks(name):
            assert [getattr(found[rank], name) for rank in group] == list(range(len(group)))
    experts = RankGenerator(tp=etp, ep=ep, dp=layout.expert_dp, pp=pp, cp=1, order="tp-cp-ep-dp-pp")
    for ours, theirs in (("etp", "tp"), ("ep", "ep")):
        for group in experts.get_ranks(theirs):
            assert [getattr(found[rank], ours) for rank in group] == list(range(len(group)))
    for group in experts.get_ranks("ep"):
        held = [expert for rank in group for expert in found[rank].experts]
        assert held == list(range(18)), "an expert-parallel group holds every expert once"
    for group in dense.get_ranks("pp"):
        held = [layer for rank in group for part in found[rank].layers for layer in part]
        assert sorted(held) == list(range(12)), "a pipeline holds every layer once"


def test_virtual_stages_interleave():
    layout = LayoutConfig(processes=2, pp=2, vpp=2)
    first, second = rank_coordinates(layout, MODEL)
    assert [list(part) for part in first.layers] == [[0, 1, 2], [6, 7, 8]]
    assert [list(part) for part in second.layers] == [[3, 4, 5], [9, 10, 11]]


def test_the_map_is_a_table_and_large_layouts_are_cut_short():
    table = rank_map(LayoutConfig(processes=4, tp=2, pp=2, ep=2), MODEL).splitlines()
    assert table[0].split() == ["rank", "tp", "pp", "cp", "ep", "etp", "dp", "layers", "experts"]
    assert table[2].split() == ["1", "1", "0", "0", "1", "0", "0", "0-5", "9-17"]
    long = rank_map(LayoutConfig(processes=256), MODEL).splitlines()
    assert len(long) == LINES_SHOWN + 2
    assert "192 more" in long[-1]


def test_layers_that_do_not_fill_the_stages_are_refused():
    with pytest.raises(ValueError, match="fewer layers than stages"):
        list(rank_coordinates(LayoutConfig(processes=13, pp=13), MODEL))
