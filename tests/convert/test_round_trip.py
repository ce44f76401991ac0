"""Hugging Face -> megatron, in any layout -> Hugging Face gives the same tensors, bit for bit."""

from __future__ import annotations

import json

import pytest
import torch
from conversions import to_hugging_face, to_megatron, verified
from random_models import COMPANIONS, CONFIGS, MIXTURES, all_tensors, random_folder
from safetensors.torch import load_file

from engine.checkpoint import manifest
from engine.errors import RunError
from engine.models.family import FAMILIES

pytestmark = pytest.mark.slow


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype and torch.equal(tensor, other[name]), name


def test_every_family_is_tried():
    assert {config["model_type"] for config in CONFIGS.values()} == set(FAMILIES)


@pytest.mark.parametrize("model", CONFIGS)
def test_there_and_back_is_bit_identical(folders, model, tmp_path):
    ep = 2 if model in MIXTURES else 1
    there = to_megatron(folders[model], tmp_path / "megatron", tp=2, pp=2, ep=ep)
    back = to_hugging_face(there, tmp_path / "back")
    assert len(list(back.glob("*.safetensors"))) > 1
    assert_equal(all_tensors(folders[model]), all_tensors(back))
    for name in (*COMPANIONS, "config.json"):
        assert (back / name).read_bytes() == (folders[model] / name).read_bytes()
    index = json.loads((back / "model.safetensors.index.json").read_text())
    for name, file in index["weight_map"].items():
        assert name in load_file(back / file)
    assert sum(t.nbytes for t in all_tensors(back).values()) == index["metadata"]["total_size"]
    assert verified(folders[model], back).tensors == len(index["weight_map"])


@pytest.mark.parametrize("cuts", [(1, 1, 1), (4, 3, 1), (3, 1, 7), (2, 2, 4)])
def test_every_layout_and_resharding_lose_nothing(mixture, cuts, tmp_path):
    first = to_megatron(mixture, tmp_path / "first", 2, 2, 2)
    again = to_megatron(first, tmp_path / "again", *cuts)
    assert verified(first, again).recorded
    assert_equal(all_tensors(mixture), all_tensors(to_hugging_face(again, tmp_path / "back")))


def test_bfloat16_stays_bfloat16_and_a_router_bias_float32(tmp_path):
    name = "deepseek_v3 with prediction head"
    source = random_folder(tmp_path / "source", name, torch.bfloat16)
    there = to_megatron(source, tmp_path / "there", tp=2)
    back = to_hugging_face(there, tmp_path / "back")
    assert {t.dtype for t in all_tensors(back).values()} == {torch.bfloat16, torch.float32}
    assert_equal(all_tensors(source), all_tensors(back))


def test_another_dtype_rounds_every_weight_but_the_router_bias(folders, tmp_path):
    name = "deepseek_v3 with prediction head"
    there = to_megatron(folders[name], tmp_path / "there")
    back = to_hugging_face(there, tmp_path / "back", dtype="bfloat16")
    expected = {
        name: tensor if name.endswith("e_score_correction_bias") else tensor.bfloat16()
        for name, tensor in all_tensors(folders[name]).items()
    }
    assert_equal(expected, all_tensors(back))
    assert json.loads((back / "config.json").read_text())["dtype"] == "bfloat16"
    assert verified(folders[name], back).dtype == "bfloat16"
    (back / "conversion.json").unlink()  # nothing says any more that it was to be rounded
    with pytest.raises(RunError, match=r"is bfloat16 .* not float32"):
        verified(folders[name], back)


def test_a_small_model_is_one_file_without_an_index(mixture, tmp_path):
    there = to_megatron(mixture, tmp_path / "there", file_bytes=10**9)
    back = to_hugging_face(there, tmp_path / "back", file_bytes=10**9)
    assert [f.name for f in back.glob("model*")] == ["model.safetensors"]
    assert_equal(all_tensors(mixture), all_tensors(back))


def test_the_checkpoint_is_covered_by_its_manifest_and_its_record(mixture, tmp_path):
    there = to_megatron(mixture, tmp_path / "there", tp=2, ep=2)
    assert manifest.problem(there) is None
    listed = json.loads((there / "manifest.json").read_text())
    assert set(listed) == {file.name for file in there.iterdir()} - {"manifest.json"}
    record = json.loads((there / "conversion.json").read_text())
    stored = all_tensors(mixture)
    assert record["tensors"].keys() == stored.keys()
    for name, found in record["tensors"].items():
        assert found["shape"] == list(stored[name].shape) and len(found["blake3"]) == 64
        assert (there / found["file"]).is_file()
    assert [entry.name for entry in tmp_path.iterdir()] == ["there"]
