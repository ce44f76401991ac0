"""A model folder is read whole or refused with the file's name; what goes with its weights."""

import json

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import RunError
from engine.weights.hugging_face import (
    INDEX,
    HuggingFaceFolder,
    copy_companions,
    shard_name,
    write_index,
)


def make_folder(path, tensors):
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "qwen3_moe"}')
    save_file(tensors, path / "model.safetensors")
    return path


def test_companions_travel_and_config_is_copied_as_it_is_unless_it_changes(tmp_path):
    source = make_folder(tmp_path / "source", {"a": torch.zeros(1)})
    (source / "tokenizer.json").write_text("{}")
    (source / "README.md").write_text("prose stays")
    folder, text = HuggingFaceFolder(source), '{"model_type":   "qwen3_moe"}'
    (source / "config.json").write_text(text)
    for durable in (True, False):
        to = tmp_path / f"target {durable}"
        to.mkdir()
        written = copy_companions(folder, to, folder.config, durable=durable)
        assert written == [to / "config.json", to / "tokenizer.json"] == sorted(to.iterdir())
        assert (to / "config.json").read_text() == text
        copy_companions(folder, to, {"model_type": "other"}, durable=durable)
        assert HuggingFaceFolder(to).config == {"model_type": "other"}


def test_an_index_names_the_shard_of_each_tensor_and_one_shard_has_none(tmp_path):
    source = make_folder(tmp_path / "source", {"a": torch.zeros(1)})
    write_index(source, {shard_name(1, 1): ["a"]}, 4)
    assert HuggingFaceFolder(source).files == {"a": source / "model.safetensors"}
    (source / "model.safetensors").rename(source / shard_name(1, 2))
    save_file({"b": torch.ones(2)}, source / shard_name(2, 2))
    write_index(source, {shard_name(1, 2): ["a"], shard_name(2, 2): ["b"]}, 12)
    folder = HuggingFaceFolder(source)
    folder.check_shards()
    assert folder.files["b"].name == "model-00002-of-00002.safetensors"
    assert json.loads((source / INDEX).read_text())["metadata"] == {"total_size": 12}


def test_shards_are_found_through_the_index(tmp_path):
    folder = make_folder(tmp_path / "sharded", {"unused": torch.zeros(1)})
    (folder / "model.safetensors").rename(folder / "one.safetensors")
    save_file({"b": torch.ones(2)}, folder / "two.safetensors")
    weight_map = {"unused": "one.safetensors", "b": "two.safetensors"}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert HuggingFaceFolder(folder).tensor("b").tolist() == [1.0, 1.0]


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"no config\.json"):
        HuggingFaceFolder(tmp_path)


def test_a_truncated_file_is_named(tmp_path):
    folder = make_folder(tmp_path / "cut", {"a": torch.zeros(100)})
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:150])
    with pytest.raises(RunError, match=r"model\.safetensors cannot be read"):
        HuggingFaceFolder(folder).tensor("a")


def test_a_missing_tensor_is_named(tmp_path):
    folder = make_folder(tmp_path / "small", {"a": torch.zeros(1)})
    with pytest.raises(RunError, match=r"has no tensor lm_head\.weight"):
        HuggingFaceFolder(folder).tensor("lm_head.weight")
