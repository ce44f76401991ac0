"""What is no Hugging Face folder of safetensors is refused by what it is, with the way out."""

from __future__ import annotations

import json
import struct

import pytest

from engine.errors import RunError
from engine.weights.safetensors_header import read_header
from engine.weights.stored_folder import INDEX, StoredFolder

CONFIG = {"model_type": "qwen2"}


def folder_with(path, *names, config=True):
    for name in names:
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    if config:
        (path / "config.json").write_text(json.dumps(CONFIG))
    return path


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("adapter_config.json", "adapter_model.safetensors"), ["adapter", "merge"]),
        (("pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"), ["pickled", "save"]),
        (("m.Q4_K_M.gguf",), ["m.Q4_K_M.gguf", "llama.cpp"]),
        (("model_index.json", "unet/config.json"), ["diffusers"]),
        (("consolidated.00.pth", "params.json"), ["consolidated.00.pth", "original format"]),
        (("consolidated.safetensors", "params.json"), ["consolidated.safetensors", "original"]),
        (("tf_model.h5",), ["TensorFlow"]),
        (("flax_model.msgpack",), ["Flax"]),
        (("__0_0.distcp", "metadata.json"), ["tools.convert megatron-to-hf"]),
        (("weights.safetensors",), ["weights.safetensors", INDEX]),
        (("snapshots/1f/config.json", "refs/main"), ["snapshots/1f: name that folder"]),
        (("inner/config.json",), ["inner: name that folder"]),
        (("optimizer.pt", "best/config.json", "best/model.safetensors"), ["best: name that"]),
        (("rank_0.pt", "huggingface/config.json"), ["rank_0.pt", "pickled"]),
        (("pytorch_model.bin.index.json",), ["pytorch_model.bin.index.json", "pickled"]),
        (("Q8_0/m-00001-of-00002.gguf",), ["Q8_0/m-00001-of-00002.gguf", "llama.cpp"]),
        (("global_step9/x.pt", "zero_to_fp32.py"), ["DeepSpeed", "run this file"]),
        (("pytorch_model_fsdp_0/__0_0.distcp",), ["FSDP", "merge-weights"]),
        (("latest_checkpointed_iteration.txt", "iter_0000009/x"), ["Megatron-LM"]),
        (("onnx/model.onnx",), ["onnx/model.onnx", "ONNX"]),
        (("weights.npz",), ["weights.npz", "MLX"]),
        (("model.fp16.safetensors",), ["model.fp16.safetensors", INDEX]),
    ],
)
@pytest.mark.parametrize("config", [True, False])
def test_what_is_held_is_named_beside_what_is_lacking(tmp_path, names, words, config):
    folder = folder_with(tmp_path, *names, config=config)
    with pytest.raises(RunError) as caught:
        _ = StoredFolder(folder).files
    said = str(caught.value)
    missing = "holds neither model.safetensors" if config else "has no config.json"
    assert missing in said and all(word in said for word in words) and len(said) < 600


def test_an_adapter_names_its_base(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "Some/Base"}')
    with pytest.raises(RunError, match=r"\(LoRA\) for Some/Base: merge it"):
        StoredFolder(tmp_path)
    (tmp_path / "adapter_config.json").write_text(
        '{"base_model_name_or_path": "Some/Base", "peft_type": "IA3"}'
    )
    with pytest.raises(RunError, match=r"\(IA3\) for Some/Base: take that model"):
        StoredFolder(tmp_path)


@pytest.mark.parametrize("shards", [1, 3])
def test_shards_without_their_index_are_named(tmp_path, shards):
    names = [f"model-{n + 1:05d}-of-{shards:05d}.safetensors" for n in range(shards)]
    with pytest.raises(RunError) as caught:
        _ = StoredFolder(folder_with(tmp_path, *names)).files
    told = "3 shards need" if shards == 3 else f"shard {names[0]} needs"
    assert str(caught.value).endswith(f"; its {told} that index")


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({}, "names no tensor at all"),
        ({"a": "adapter.bin"}, "adapter.bin, which is no safetensors file"),
        ({"a": "../a.safetensors"}, "not in its folder"),
        ({"a": None}, "it names None as the file of a"),
        (["a"], "it has no weight_map of names and files"),
        (None, "it has no weight_map of names and files"),
    ],
)
def test_an_index_of_something_else(tmp_path, weight_map, message):
    folder = folder_with(tmp_path)
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(RunError, match=message):
        _ = StoredFolder(folder).files


def header(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


ONE = '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it has 0 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"<html><body>403 Forbidden</body></html>", "a text that begins with '<html>"),
        (b'{"error": "not found"}', "a text that begins with '{"),
        (header(ONE), "header asks for"),
        (header(ONE) + b"\0" * 9, "header asks for"),
        (
            header(ONE.replace("[2]", "[3]")) + b"\0" * 8,
            "a has 8 bytes, F32 of shape [3] asks for 12",
        ),
        (
            header(ONE.replace("[0,8]", "[4,8]")) + b"\0" * 8,
            "a begins at byte 4, the tensor before",
        ),
        (header("[]"), "cannot be read"),
        (header('{"a":{"dtype":"F32"}}'), "cannot be read"),
        (struct.pack("<Q", 1 << 60) + b"{}", "do not hold the header"),
        (header("{")[:-1] + b"\xff", "cannot be read"),
    ],
)
def test_a_file_that_is_no_safetensors_file_is_named(tmp_path, content, message):
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(RunError, match=rf"{file} cannot be read as safetensors: .*") as caught:
        read_header(file)
    assert message in str(caught.value)


def test_a_header_says_dtypes_and_shapes(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(header(ONE) + b"\0" * 8)
    assert {name: (t.dtype, t.shape) for name, t in read_header(file).items()} == {
        "a": ("F32", (2,))
    }
