"""Saved in one layout, loaded in any other: the same tensors, and the same training afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from checkpointed_models import EVERY_KIND, MIXTURE
from pool_case import live
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.format_utils import _EmptyStateDictLoadPlanner
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict

from engine.config.layout import LayoutConfig

LAYOUTS = {
    "tp2 pp2 ep2": {"processes": 4, "tp": 2, "pp": 2, "ep": 2},
    "one process": {"processes": 1},
    "pp4": {"processes": 4, "pp": 4},  # the dense first stage has no expert
    "ep4": {"processes": 4, "ep": 4},
    "pp2 vpp2": {"processes": 2, "pp": 2, "vpp": 2},
    "tp2 etp2 cp2": {"processes": 4, "tp": 2, "etp": 2, "cp": 2},
    "tp2 pp2 ep2 again": {"processes": 4, "tp": 2, "pp": 2, "ep": 2},
}
FIRST = next(iter(LAYOUTS))
MOVING = (  # one weight of each kind
    "embedding.word_embeddings.weight",
    "decoder.layers.3.self_attention.linear_q_down_proj.weight",
    "decoder.layers.0.mlp.linear_fc1.weight",
    "decoder.layers.1.mlp.router.weight",
    "decoder.layers.1.mlp.experts.experts.linear_fc1.weight",
    "decoder.layers.1.mlp.shared_experts.linear_fc1.weight",
    "mtp.layers.0.eh_proj.weight",
    "output_layer.weight",
)
BIAS = "decoder.layers.1.mlp.router.expert_bias"


@pytest.fixture(scope="module")
def runs(pool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders by layout, each with checkpoints of step BEGIN and END.

    The first layout trains from random weights and goes on undisturbed. Each other one takes over
    at step BEGIN from the one before it.
    """
    folder = tmp_path_factory.mktemp("runs")
    for source, (name, layout) in zip([None, *LAYOUTS], LAYOUTS.items(), strict=False):
        place = {"layout": LayoutConfig(**layout), "model": EVERY_KIND, "folder": folder / name}
        if source is None:
            pool.run(live, what="checkpointed_runs.begin", **place)
        else:
            pool.run(live, what="checkpointed_runs.take_over", **place, source=folder / source)
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every whole tensor of a checkpoint, by key; torch alone reads it, no megatron."""
    state: dict = {}
    _load_state_dict(
        state, FileSystemReader(folder), planner=_EmptyStateDictLoadPlanner(), no_dist=True
    )
    return {key: value for key, value in state.items() if torch.is_tensor(value)}


@pytest.mark.slow
@pytest.mark.parametrize("layout", list(LAYOUTS)[1:])
def test_every_tensor_survives_the_way_through_all_layouts_bit_for_bit(runs, layout):
    first, here = tensors(runs / FIRST / "000002"), tensors(runs / layout / "000002")
    assert set(first) == set(here)
    for name, tensor in first.items():
        assert torch.equal(tensor, here[name]), name
    updates = [
        json.loads((runs / name / "000002" / "run.json").read_text())["updates"]
        for name in (FIRST, layout)
    ]
    assert updates == [2, 2]


@pytest.mark.slow
def test_a_checkpoint_holds_every_kind_of_state(runs):
    begin, end = tensors(runs / FIRST / "000002"), tensors(runs / FIRST / "000005")
    kinds = (
        "",
        "optimizer.state.param.",
        "optimizer.state.exp_avg.",
        "optimizer.state.exp_avg_sq.",
    )
    for weight in MOVING:
        for kind in kinds:
            assert (begin[kind + weight] != end[kind + weight]).any(), kind + weight
        assert torch.equal(begin["reference." + weight], end["reference." + weight])
        assert (begin["reference." + weight] != begin[weight]).any()
    assert (begin[BIAS] != end[BIAS]).any() and begin[BIAS].any()


@pytest.mark.slow
@pytest.mark.parametrize("layout", list(LAYOUTS)[1:])
def test_the_next_three_steps_equal_the_undisturbed_ones(runs, layout):
    begin = tensors(runs / FIRST / "000002")
    undisturbed, here = tensors(runs / FIRST / "000005"), tensors(runs / layout / "000005")
    weights = [name for name in begin if not name.startswith(("optimizer.", "reference."))]
    moved = max((undisturbed[name] - begin[name]).abs().max().item() for name in weights)
    assert moved > 1e-3
    for name in weights:
        off = (here[name] - undisturbed[name]).abs().max().item()
        assert off < 0.01 * moved, f"{name} is off by {off:.1e}, the largest update is {moved:.1e}"


@pytest.mark.slow
def test_random_numbers_go_on_in_the_same_layout_and_are_fresh_in_another(pool, tmp_path):
    def drawn(layout: dict, saves: bool) -> list[float]:
        where = {"layout": LayoutConfig(**layout), "folder": tmp_path}
        return pool.run(live, what="checkpointed_runs.draw", **where, model=MIXTURE, saves=saves)

    two, tensor = {"processes": 2}, {"processes": 2, "tp": 2}
    saved = drawn(two, saves=True)
    assert drawn(two, saves=False) == saved
    elsewhere = drawn(tensor, saves=False)
    assert drawn(tensor, saves=False) == elsewhere  # by rule, not by chance
    assert set(elsewhere).isdisjoint(saved)


@pytest.mark.slow
def test_parameters_that_are_still_being_gathered_are_saved_as_they_will_be(pool, tmp_path):
    options = {"overlap_grad_reduce": True, "overlap_param_gather": True, "bucket_parameters": 4096}
    where = {"layout": LayoutConfig(processes=2), "folder": tmp_path, "model": MIXTURE}
    pool.run(live, what="checkpointed_runs.save_after_two_updates", **where, options=options)
    saved, master = tensors(tmp_path / "000002"), "optimizer.state.param."
    masters = [name.removeprefix(master) for name in saved if name.startswith(master)]
    assert "embedding.word_embeddings.weight" in masters
    for name in masters:  # which are each rank's own, and never stale
        assert torch.equal(saved[name], saved[master + name]), name
