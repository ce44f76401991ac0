"""A source that is not whole is refused by the name of the file or tensor; no target appears."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from conversions import to_hugging_face, to_megatron
from random_models import change
from safetensors.torch import load_file, save_file

from engine.errors import RunError

INDEX = "model.safetensors.index.json"
GATE = "model.layers.1.mlp.experts.3.gate_proj.weight"


@pytest.fixture
def source(mixture, tmp_path):
    return shutil.copytree(mixture, tmp_path / "source")


def refused(source, match):
    target = source.parent / "target"
    with pytest.raises(RunError, match=match):
        to_megatron(source, target)
    assert not target.exists()


def test_a_truncated_shard(source):
    file = source / "model-00002-of-00003.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    refused(source, r"model-00002-of-00003\.safetensors cannot be read as safetensors")


def test_a_missing_shard(source):
    (source / "model-00003-of-00003.safetensors").unlink()
    refused(source, r"model-00003-of-00003\.safetensors cannot be read")


def test_a_missing_index(source):
    (source / INDEX).unlink()
    refused(source, rf"holds neither model\.safetensors nor {INDEX}; its 3 shards need")


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_an_index_that_is_none(source, text):
    (source / INDEX).write_text(text)
    refused(source, rf"{INDEX} is no index of safetensors files")


def test_a_tensor_in_two_shards(source):
    weight_map = json.loads((source / INDEX).read_text())["weight_map"]
    other = next(name for name, file in weight_map.items() if file != weight_map[GATE])
    change(source, other, lambda tensor: tensor)
    file = source / weight_map[other]
    save_file({**load_file(file), GATE: torch.zeros(26, 44)}, file)
    refused(source, rf"{file.name} holds {GATE}, but {INDEX} places it in {weight_map[GATE]}")


def test_a_name_twice_in_the_index(source):
    text = (source / INDEX).read_text()
    entry = f'"{GATE}": "model-00001-of-00003.safetensors", '
    (source / INDEX).write_text(text.replace('"weight_map": {', '"weight_map": {' + entry))
    refused(source, rf"it names {GATE} twice")


def test_a_shard_that_no_index_names(source):
    save_file({"a": torch.zeros(1)}, source / "model-00004-of-00004.safetensors")
    refused(source, r"model-00004-of-00004\.safetensors lies among the shards")


def test_a_file_outside_the_folder(source):
    index = json.loads((source / INDEX).read_text())
    index["weight_map"][GATE] = "../elsewhere.safetensors"
    (source / INDEX).write_text(json.dumps(index))
    refused(source, r"names the file \.\./elsewhere\.safetensors")


def test_a_tensor_that_is_missing(source):
    change(source, GATE, lambda tensor: None)
    refused(source, rf"has no tensor {GATE}, which {INDEX} places there")
    index = json.loads((source / INDEX).read_text())
    del index["weight_map"][GATE]
    (source / INDEX).write_text(json.dumps(index))
    refused(source, rf"lacks 1 tensors that its family needs, first {GATE}")


def test_a_tensor_that_the_family_does_not_name(source):
    index = json.loads((source / INDEX).read_text())
    file = "model-00009-of-00009.safetensors"
    save_file({"model.layers.9.surprise": torch.zeros(1)}, source / file)
    index["weight_map"]["model.layers.9.surprise"] = file
    (source / INDEX).write_text(json.dumps(index))
    refused(source, r"holds 1 tensors that its family does not name, first model\.layers\.9")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers(source, value):
    def poison(tensor):
        tensor[3, 5] = tensor[4, 0] = value
        return tensor

    change(source, GATE, poison)
    refused(source, rf"{GATE} has 2 weights that are NaN or infinite")


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64, torch.float8_e5m2])
def test_a_dtype_that_no_weight_has(source, dtype):
    change(source, GATE, lambda tensor: tensor.to(dtype))
    refused(source, rf"{GATE} is {str(dtype).removeprefix('torch.')}; expected weights in float32")


def test_parts_of_one_tensor_in_two_dtypes(source):
    change(source, GATE, lambda tensor: tensor.bfloat16())
    refused(source, rf"up_proj\.weight is float32, but {GATE}, .*, is bfloat16")


def test_a_shape_that_the_config_does_not_ask_for(source):
    change(source, GATE, lambda tensor: tensor[:, :-1].clone())
    refused(source, rf"{GATE} has shape \(26, 43\); config\.json asks for \(26, 44\)")


def test_copies_of_one_tensor_that_differ(folders, tmp_path):
    source = shutil.copytree(folders["deepseek_v3 with prediction head"], tmp_path / "source")
    change(source, "model.layers.3.embed_tokens.weight", lambda tensor: tensor + 1)
    refused(source, r"embed_tokens\.weight cannot make embedding.*: should be copies of one")


def test_a_damaged_megatron_checkpoint(mixture, tmp_path):
    there = to_megatron(mixture, tmp_path / "there")
    file = next(there.glob("*.distcp"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(RunError, match=rf"{file.name} is damaged: its digest"):
        to_hugging_face(there, tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("key", ["rms_norm_eps", "vocab_size", "moe_intermediate_size"])
def test_a_config_that_lacks_a_key(source, key):
    config = json.loads((source / "config.json").read_text())
    del config[key]
    (source / "config.json").write_text(json.dumps(config))
    refused(source, rf"config\.json lacks the key '{key}'")


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff\xfe"])
def test_a_config_that_is_none(source, content):
    (source / "config.json").write_bytes(content)
    refused(source, r"config\.json is no")


def test_what_is_no_checkpoint(tmp_path):
    file = tmp_path / "a.gguf"
    file.touch()
    with pytest.raises(RunError, match="expected a folder, found a file"):
        to_megatron(file, tmp_path / "target")
    with pytest.raises(RunError, match="expected a folder, found none"):
        to_megatron(tmp_path / "nothing", tmp_path / "target")
    with pytest.raises(RunError, match=r"no config\.json"):
        to_megatron(tmp_path, tmp_path / "target")
