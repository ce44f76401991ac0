"""Published configs are what their makers say: parameters to the last, names, shapes, layouts."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest
import torch
from run_program import run_program

import engine.models.published
from engine.config.model_fit import check_fit
from engine.config.model_sizes import model_sizes
from engine.models.family import family_of
from engine.models.published import NAMES, RECOMMENDED, published
from engine.models.sharding import EMBEDDING, Sharding, TensorInfo, tensor_infos
from engine.models.weight_rules import Copies, Join, expand

PARAMETERS = {
    "DeepSeek-V3": 671_026_419_200,  # of the main model
    "Llama-3.1-8B": 16_060_522_496 // 2,
    "Llama-3.3-70B": 141_107_412_992 // 2,
    "Qwen2.5-1.5B": 1_543_714_304,
    "Qwen2.5-7B": 15_231_233_024 // 2,
    "Qwen2.5-14B": 29_540_067_328 // 2,
    "Qwen2.5-32B": 65_527_752_704 // 2,
    "Qwen3-30B-A3B": 61_064_245_248 // 2,
    "Qwen3-235B-A22B": 470_187_269_120 // 2,
}
"""Of bfloat16 checkpoints the ``total_size`` in their index; README.md says more."""

DEEPSEEK_V3_ELEMENTS = 684_489_845_504
"""Weights of its files, the prediction head and its copies of embedding and output layer too."""
DEEPSEEK_V3_TENSORS = 91_991
"""Of its files, scales of FP8 weights included."""
DEEPSEEK_V3_BYTES = 688_586_727_753
"""Of its 163 files, their headers included."""

README = Path(engine.models.published.__file__).with_name("README.md")


@pytest.fixture(scope="module")
def tensors() -> dict[str, list[TensorInfo]]:
    return {name: tensor_infos(published(name)) for name in NAMES}


def main_model(wholes: list[TensorInfo]) -> list[TensorInfo]:
    return [whole for whole in wholes if not whole.key.startswith("mtp.")]


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_as_many_as_published(tensors, name):
    assert sum(whole.elements for whole in main_model(tensors[name])) == PARAMETERS[name]


def is_quantised(whole: TensorInfo) -> bool:
    """Linear layers of attention and feed-forward; not the router, nor what is outside layers."""
    inside = ".self_attention." in whole.key or ".mlp." in whole.key
    return inside and len(whole.shape) == 2 and ".router." not in whole.key


def test_deepseek_v3s_files_hold_what_is_derived_scales_included(tensors):
    count = elements = size = 0
    for whole in tensors["DeepSeek-V3"]:
        copies = len(whole.names) if whole.key in (EMBEDDING, "output_layer.weight") else 1
        elements += copies * whole.elements
        count += len(whole.names)
        if is_quantised(whole):
            count += len(whole.names)
            rows, columns = whole.shape
            parts = len(whole.names)  # gate and up have scales of their own
            size += whole.elements + 4 * parts * -(-rows // parts // 128) * -(-columns // 128)
        else:
            size += copies * whole.elements * (4 if whole.kind.float32 else 2)
    assert (elements, count) == (DEEPSEEK_V3_ELEMENTS, DEEPSEEK_V3_TENSORS)
    headers = DEEPSEEK_V3_BYTES - size
    assert 0 < headers < 200 * count, "a tensor's line in a header has less than 200 letters"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_on_exactly_one_shard_in_the_recommended_layout(name):
    config, layout = published(name), RECOMMENDED[name]
    check_fit(model_sizes(config), layout)
    sharding = Sharding(config, layout)
    pieces = defaultdict(lambda: defaultdict(int))
    for coordinates in sharding.rank_coordinates():
        for held in sharding.of(coordinates):
            bounds = tuple((part.start, part.stop) for part in held.place)
            pieces[held.whole.key, held.whole.expert][bounds] += 1
    assert set(pieces) == {(whole.key, whole.expert) for whole in sharding.tensors}
    for whole in sharding.tensors:
        found = pieces[whole.key, whole.expert]
        copies = layout.dp * layout.cp if whole.expert is None else layout.expert_dp
        if whole.kind.cut is None and whole.expert is None:
            copies *= layout.tp
        if whole.key == EMBEDDING and layout.pp > 1 and config.get("num_nextn_predict_layers"):
            copies *= 2  # the last stage has it too
        assert set(found.values()) == {copies}, whole.key
        axis = whole.kind.cut or 0
        edges = sorted(bounds[axis] for bounds in found)
        assert [begin for begin, _ in edges] == [0, *(end for _, end in edges[:-1])]
        assert edges[-1][1] == whole.shape[axis]


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_tells_the_heaviest_rank(name):
    layout = RECOMMENDED[name]
    sharding = Sharding(published(name), layout)
    weights = trained = 0.0
    for coordinates in sharding.rank_coordinates():
        held = sharding.of(coordinates)
        experts = sum(piece.elements for piece in held if piece.whole.expert is not None)
        others = sum(piece.elements for piece in held) - experts
        shared = others / (layout.dp * layout.cp) + experts / layout.expert_dp
        weights = max(weights, sum(piece.bytes(2) for piece in held) / 1e9)
        trained = max(trained, (6 * (others + experts) + 12 * shared) / 1e9)
    (row,) = re.findall(rf"\| {re.escape(name)} \|.*", README.read_text())
    assert row.endswith(f"| {weights:.1f} | {trained:.1f} |")
    assert trained < 40, "less than half of a GPU"


@pytest.fixture(scope="module")
def theirs() -> dict[str, dict[str, list[int]]]:
    return run_program("on_the_meta_device")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes_are_those_of_transformers(theirs, tensors, name):
    config, shapes = published(name), theirs[name]
    maps = expand(family_of(config).rules(config))
    used: list[str] = []
    for whole in main_model(tensors[name]):
        tensor_map = maps[whole.key, whole.expert]
        names = [n for n in tensor_map.names if not is_of_the_prediction_head(n, config)]
        made = joined(tensor_map.join, *(tuple(shapes[n]) for n in names))
        assert made == whole.shape, whole.key
        used += names
    assert len(used) == len(set(used))
    assert [*set(used) ^ set(shapes)][:5] == []  # a diff of all would take minutes


@cache
def joined(join: Join, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of what ``join`` makes; of copies one is there, without the prediction head."""
    parts = [torch.empty(shape, device="meta") for shape in shapes]
    return tuple((parts[0] if isinstance(join, Copies) else join.join(parts)).shape)


def is_of_the_prediction_head(name: str, config: dict) -> bool:
    """transformers drops it."""
    return name.startswith(f"model.layers.{config['num_hidden_layers']}.")
