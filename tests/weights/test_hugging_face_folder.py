"""A model folder is read whole or refused with the file's name, and written whole or not at all."""

import json

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import RunError
from engine.weights.hugging_face import HuggingFaceFolder, write_folder


def make_folder(path, tensors):
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "qwen3_moe"}')
    save_file(tensors, path / "model.safetensors")
    return path


def test_a_written_folder_reads_back_with_its_companions(tmp_path):
    source = make_folder(tmp_path / "source", {"a": torch.zeros(1)})
    (source / "tokenizer.json").write_text("{}")
    tensors = {"a": torch.randn(3, 2), "b": torch.arange(4)}
    write_folder(tmp_path / "target", tensors, source)
    target = HuggingFaceFolder(tmp_path / "target")
    assert target.config == {"model_type": "qwen3_moe"}
    assert set(target.files) == {"a", "b"}
    assert all(torch.equal(target.tensor(name), tensors[name]) for name in tensors)
    assert (target.path / "tokenizer.json").is_file()


def test_writing_again_replaces_the_folder(tmp_path):
    source = make_folder(tmp_path / "source", {"a": torch.zeros(1)})
    for value in (1.0, 2.0):
        write_folder(tmp_path / "target", {"a": torch.tensor([value])}, source)
    assert HuggingFaceFolder(tmp_path / "target").tensor("a").item() == 2.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


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
