"""A model folder that a run could not train is refused before it starts, for all its reasons."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tokenizers
from model_folders import BLOCK_FP8, DEEPSEEK, MIXTRAL, QWEN3, folder_of, tensors_of, write_file
from tokenizers.models import WordLevel

from engine.preflight import model_folder
from engine.preflight.sections import Sections
from engine.weights.stored_folder import INDEX

NORM = "model.layers.1.input_layernorm.weight"
O_PROJ = "model.layers.1.self_attn.o_proj.weight"
QUERY = "model.layers.0.self_attn.q_proj.weight"


def said(folder: Path) -> list[str]:
    found = list(model_folder.check(Sections({"model": folder}, print)))
    assert all(one.refuses and one.key == ("model",) for one in found)
    return [one.says for one in found]


def only(folder: Path) -> str:
    (found,) = said(folder)
    return found


@pytest.mark.parametrize("config", [QWEN3, MIXTRAL, DEEPSEEK], ids=lambda c: c["model_type"])
@pytest.mark.parametrize("shards", [2, 9])
def test_a_good_folder_is_passed(tmp_path: Path, config, shards):
    assert said(folder_of(tmp_path, config, shards=shards)) == []


def test_a_tied_output_layer_may_be_stored_or_not(tmp_path: Path):
    tied = {**QWEN3, "tie_word_embeddings": True}
    tensors = tensors_of(tied)
    assert said(folder_of(tmp_path / "once", tied, tensors)) == []
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    folder = folder_of(tmp_path / "twice", tied, tensors, shards=1)
    assert said(folder) == []
    change_first_byte(folder / "model-00001-of-00001.safetensors", "lm_head.weight")
    assert only(folder) == (
        "lm_head.weight should be a copy of model.embed_tokens.weight, and is another tensor; set "
        "tie_word_embeddings to false in config.json"
    )


def change_first_byte(file: Path, name: str) -> None:
    content = bytearray(file.read_bytes())
    length = int.from_bytes(content[:8], "little")
    content[8 + length + json.loads(content[8 : 8 + length])[name]["data_offsets"][0]] ^= 1
    file.write_bytes(content)


def test_an_output_layer_that_is_missing_may_be_tied(tmp_path: Path):
    tensors = tensors_of(QWEN3)
    del tensors["lm_head.weight"]
    assert "set tie_word_embeddings to true" in only(folder_of(tmp_path, QWEN3, tensors))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "gpt_oss"}, ["model_type 'gpt_oss'; known are: deepseek_v2"]),
        ({"model_type": None}, ["no model_type; known are"]),
        (
            {"rms_norm_eps": None, "intermediate_size": None},
            ["lacks the keys 'intermediate_size', 'rms_norm_eps'"],
        ),
        ({"max_position_embeddings": None}, ["lacks the key 'max_position_embeddings'"]),
        ({"hidden_size": "24"}, ["hidden_size '24', expected a whole number"]),
        (
            {"attention_bias": True, "use_sliding_window": True},
            ["attention_bias True, only False", "use_sliding_window True, only False"],
        ),
        ({"rope_scaling": {"rope_type": "longrope"}}, ["rope_type 'longrope', its family knows"]),
        ({"rope_scaling": {"rope_type": "yarn"}}, ["lacks the key 'factor'"]),
        ({"layer_types": ["full_attention"]}, ["layer_types for 1 layers, expected one for each"]),
        ({"layer_types": ["full_attention", "sliding_attention"], "use_sliding_window": False},
         ["layer_types 'sliding_attention' for layer 1, only 'full_attention'"]),
        ({"layer_types": "full_attention"}, ["layer_types for 'full_attention' layers"]),
        ({"num_key_value_heads": 3}, ["num_attention_heads 4, expected a multiple of num_key_val"]),
    ],
)  # fmt: skip
def test_a_config_that_no_family_reads_is_refused_by_its_keys(tmp_path: Path, change, words):
    folder = folder_of(tmp_path)
    (folder / "config.json").write_text(json.dumps({**QWEN3, **change}))
    found = only(folder)
    assert all(word in found for word in words), found


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "no valid JSON"),
        (b"[]", "no JSON object"),
        (b"\xff", "valid"),
        (b"version https://git-lfs.github.com/spec/v1\n", "no valid JSON: it is a pointer of Git"),
    ],
)
def test_a_config_that_is_none_is_refused(tmp_path: Path, content, words):
    folder = folder_of(tmp_path)
    (folder / "config.json").write_bytes(content)
    assert words in only(folder)


def test_every_problem_is_told_at_once(tmp_path: Path):
    folder = folder_of(tmp_path, tensors={**tensors_of(QWEN3), NORM: ("BF16", (23,))})
    quantised = {"quant_method": "awq"}
    config = {**QWEN3, "rms_norm_eps": None, "quantization_config": quantised}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model-00002-of-00002.safetensors").unlink()
    found = said(folder)
    for words in (
        "lacks the key 'rms_norm_eps'",
        "quantised (awq)",
        "model-00002-of-00002.safetensors cannot be read",
    ):
        assert sum(words in one for one in found) == 1, (words, found)
    assert len(found) == 3


def test_what_is_known_of_another_familys_folder_is_told_beside_it(tmp_path: Path):
    folder = folder_of(tmp_path)
    quantised = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"] * 500}
    config = {"model_type": "gpt_oss", "quantization_config": quantised}
    (folder / "config.json").write_text(json.dumps(config))
    first, second = said(folder)
    assert "gpt_oss" in first and "mxfp4" in second and len(second) < 300


@pytest.mark.parametrize(
    ("name", "found", "words"),
    [
        (NORM, ("BF16", (23,)), f"{NORM} has shape (23,); config.json asks for (24,)"),
        (QUERY, ("BF16", (24, 25)), f"{QUERY} has shape (24, 25); config.json asks for (24, 24)"),
        (NORM, ("I64", (24,)), f"{NORM} is I64; expected weights in F32, BF16, F16: save them so"),
        (QUERY, ("F32", (24, 24)), f"several dtypes: {QUERY} is F32, "),
        (QUERY, ("F8_E4M3", (24, 24)), f"{QUERY} is F8_E4M3; expected weights"),
    ],
)
def test_a_tensor_that_the_config_does_not_ask_for_is_named(tmp_path: Path, name, found, words):
    folder = folder_of(tmp_path, tensors={**tensors_of(QWEN3), name: found})
    assert any(words in one for one in said(folder))


def test_what_is_lacking_and_what_is_held_instead_are_one_sentence(tmp_path: Path):
    tensors = {f"model.{name}": found for name, found in tensors_of(QWEN3).items()}
    found = only(folder_of(tmp_path, tensors=tensors))
    assert "lacks 25 tensors" in found and "it holds 25 tensors" in found
    assert "model.model.embed_tokens.weight" in found and len(found) < 500


def test_many_problems_of_a_kind_are_counted(tmp_path: Path):
    tensors = {name: ("BF16", (7, *shape)) for name, (_, shape) in tensors_of(QWEN3).items()}
    found = said(folder_of(tmp_path, tensors=tensors))
    assert len(found) == 6 and found[-1] == "and 20 more of that kind"


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        ({f"{O_PROJ}_scale_inv": ("F32", (2, 2))}, None),
        ({f"{O_PROJ}_scale_inv": ("BF16", (2, 2))}, None),
        ({f"{O_PROJ}_scale_inv": ("F32", (1, 2))}, "has shape (1, 2); weight_block_size in"),
        ({}, f"{O_PROJ} is in FP8, and there is no {O_PROJ}_scale_inv"),
    ],
)
def test_block_fp8_is_trained_from_if_its_scales_fit(tmp_path: Path, scale, words):
    config = {**QWEN3, "quantization_config": BLOCK_FP8}
    tensors = {**tensors_of(QWEN3), O_PROJ: ("F8_E4M3", (24, 24)), **scale}
    found = said(folder_of(tmp_path, config, tensors))
    assert found == [] if words is None else words in found[0]


def test_tensors_that_are_joined_may_be_quantised_in_part(tmp_path: Path):
    config = {**QWEN3, "quantization_config": BLOCK_FP8}
    tensors = {**tensors_of(QWEN3), QUERY: ("F8_E4M3", (24, 24))}
    tensors[f"{QUERY}_scale_inv"] = ("F32", (2, 2))
    assert said(folder_of(tmp_path, config, tensors)) == []
    half = {**config, "torch_dtype": "float16"}
    assert f"{QUERY} is F16, " in only(folder_of(tmp_path, half, tensors))


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ("{", "is no index of safetensors files"),
        ('{"weight_map": {}}', "names no tensor at all"),
        ('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}', "has no tensor a, which"),
    ],
)
def test_an_index_of_something_else_is_refused(tmp_path: Path, index, words):
    folder = folder_of(tmp_path)
    (folder / INDEX).write_text(index)
    assert words in said(folder)[0]


def test_a_shard_that_is_cut_off_is_named_without_reading_it(tmp_path: Path):
    folder = folder_of(tmp_path)
    file = folder / "model-00001-of-00002.safetensors"
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size - 1)
    assert "model-00001-of-00002.safetensors cannot be read as safetensors: it has" in only(folder)


def test_more_experts_chosen_than_there_are(tmp_path: Path):
    config = {**MIXTRAL, "num_experts_per_tok": 5}
    assert "num_experts_per_tok 5, expected at most the number of experts 4" in only(
        folder_of(tmp_path, config, tensors_of(MIXTRAL))
    )


def test_an_adapter_beside_a_whole_model_is_not_dropped(tmp_path: Path):
    folder = folder_of(tmp_path)
    (folder / "adapter_config.json").write_text("{}")
    assert "adapter_config.json beside a whole model" in only(folder)


def test_no_folder_and_other_formats(tmp_path: Path):
    assert said(tmp_path / "gone") == []  # the key itself is wrong
    assert "no config.json" in only(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "adapter (LoRA)" in only(tmp_path)


def test_a_config_alone_is_asked_for_its_family(tmp_path: Path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(QWEN3))
    assert said(file) == []
    file.write_text(json.dumps({**QWEN3, "rms_norm_eps": None}))
    assert "rms_norm_eps" in only(file)


def test_the_largest_published_folder_takes_seconds(tmp_path: Path):
    from engine.models.published import published

    config = published("DeepSeek-V3")
    config = {k: v for k, v in config.items() if k != "quantization_config"}
    tensors = tensors_of(config)
    tmp_path.joinpath("empty").touch()
    folder = folder_of(tmp_path / "model", config, {NORM: ("BF16", (1,))}, shards=1)
    names = sorted(tensors)
    weight_map = {}
    for shard in range(163):
        file = f"model-{shard:05d}-of-00163.safetensors"
        held = {name: tensors[name] for name in names[shard::163]}
        write_file(folder / file, held)  # sparse: takes no room
        weight_map |= dict.fromkeys(held, file)
    (folder / "model-00001-of-00001.safetensors").unlink()
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    began = time.process_time()
    assert said(folder) == []
    assert time.process_time() - began < 8


def test_neither_torch_nor_megatron_is_imported(tmp_path: Path):
    program = (
        "import sys, pathlib\n"
        "from engine.preflight.preflight import CHECKS, Preflight\n"
        "from engine.config.servers import ServersConfig\n"
        "from engine.config.training import TrainingConfig\n"
        "valid = {'model': pathlib.Path(sys.argv[1]),\n"
        "         'servers': ServersConfig(count=1, max_total_tokens=64),\n"
        "         'training': TrainingConfig(dtype='float32', tokens_per_microbatch=8)}\n"
        "print([says for _, says in Preflight(print, CHECKS)(valid)])\n"
        "print(*sorted({'torch', 'megatron', 'sglang', 'transformers'} & sys.modules.keys()))"
    )
    folder = folder_of(tmp_path, {**MIXTRAL, "eos_token_id": 3})
    tokenizers.Tokenizer(WordLevel({"a": 0}, unk_token="a")).save(str(folder / "tokenizer.json"))
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n") == ["[]", "", ""]
