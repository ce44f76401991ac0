"""A key with null says what a missing one says, for every key of every config; both dtype keys."""

from __future__ import annotations

import json

import pytest
from small_models import MODELS

from engine.config.model_sizes import model_sizes
from engine.errors import RunError
from engine.models.config_json import dtype_name, with_dtype_name
from engine.models.family import family_of
from engine.models.published import NAMES, published
from engine.models.sharding import tensor_infos

CONFIGS = {**MODELS, **{name: published(name) for name in NAMES}}


def meaning(config):
    """What a config says to everything that reads it, or the sentence that refuses it."""
    if config.get("num_hidden_layers"):  # thousands of tensors of the same few kinds
        config = {**config, "num_hidden_layers": 2}
    try:
        architecture = family_of(config).architecture(config)
        return architecture, tensor_infos(config), model_sizes(config)
    except RunError as error:
        return str(error)


@pytest.mark.parametrize("name", CONFIGS)
def test_null_says_what_a_missing_key_says(name):
    for key in CONFIGS[name].keys() - {"q_lora_rank"}:
        absent = {k: v for k, v in CONFIGS[name].items() if k != key}
        found = meaning({**CONFIGS[name], key: None})
        assert found == meaning(absent), key
        if isinstance(found, str):
            assert key in found or key == "rope_parameters", (key, found)


@pytest.mark.parametrize("name", [name for name in MODELS if "q_lora_rank" in MODELS[name]])
def test_a_query_rank_of_null_is_none_and_a_missing_one_is_missed(name):
    config = {**MODELS[name], "q_lora_rank": None}
    assert family_of(config).architecture(config)["q_lora_rank"] is None
    del config["q_lora_rank"]
    assert meaning(config) == "model: config.json lacks the key 'q_lora_rank'"


@pytest.mark.parametrize("outer", ["rope_parameters", "rope_scaling"])
@pytest.mark.parametrize("name", CONFIGS)
def test_null_inside_rotary_settings_says_what_a_missing_key_says(name, outer):
    inside = CONFIGS[name].get(outer) or {}
    for key in inside:
        absent = {k: v for k, v in inside.items() if k != key}
        found = meaning({**CONFIGS[name], outer: {**inside, key: None}})
        if key == "truncate":
            assert "truncate None" in found
        else:
            assert found == meaning({**CONFIGS[name], outer: absent}), key


@pytest.mark.parametrize("value", ["64", 64.0, True, [64], {}, 0, -1])
def test_a_size_that_is_none_is_refused_by_its_key(value):
    config = {**MODELS["qwen3"], "num_attention_heads": value}
    assert f"num_attention_heads {value!r}, expected" in meaning(config)


@pytest.mark.parametrize(
    ("key", "value"),
    [("rms_norm_eps", "1e-6"), ("rms_norm_eps", float("nan")), ("tie_word_embeddings", 1)],
)
def test_another_kind_of_value_is_refused_by_its_key(key, value):
    assert f"{key} {value!r}, expected" in meaning({**MODELS["qwen3"], key: value})


def test_two_numbers_of_experts_are_refused():
    config = {**MODELS["qwen3_moe"], "num_local_experts": 5}
    assert "num_experts 7 and num_local_experts 5, expected one number" in meaning(config)
    assert meaning({**config, "num_local_experts": 7}) == meaning(MODELS["qwen3_moe"])


def test_no_message_repeats_a_long_value():
    for change in (
        {"hidden_act": "x" * 9000},
        {"head_dim": ["x"] * 9000},
        {"model_type": ["x"] * 9000},
        {"model_type": "x" * 9000},
        {"rope_scaling": ["x"] * 9000},
        {"rope_scaling": {"rope_type": "x" * 9000}},
    ):
        assert len(meaning({**MODELS["qwen3"], **change})) < 300


def test_llama_leaves_out_what_its_first_versions_left_out():
    config = {**MODELS["llama, tied"], "num_attention_heads": 3, "num_key_value_heads": 3}
    older = {k: v for k, v in config.items() if k != "num_key_value_heads"}
    assert meaning(older) == meaning(config)
    assert "num_key_value_heads" in meaning({**older, "model_type": "qwen2"})


@pytest.mark.slow
@pytest.mark.parametrize(
    "model_type", ["glm4_moe", "llama", "mixtral", "qwen2", "qwen3_moe", "qwen3"]
)
def test_heads_that_nobody_states_are_as_wide_as_transformers_takes_them(model_type):
    import transformers

    name = next(name for name in MODELS if MODELS[name]["model_type"] == model_type)
    config = {**MODELS[name], "hidden_size": 96}
    config.pop("head_dim", None)
    theirs = transformers.AutoConfig.for_model(**json.loads(json.dumps(config)))
    expected = getattr(theirs, "head_dim", None) or 96 // config["num_attention_heads"]
    assert model_sizes(config).query_channels == expected
    assert expected == (128 if model_type == "qwen3" else 16)


@pytest.mark.slow  # transformers starts in seven seconds
@pytest.mark.parametrize(
    ("said", "name"),
    [
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"torch_dtype": "float16"}, "float16"),
        ({"torch_dtype": "float16", "dtype": None}, "float16"),
        ({"torch_dtype": "float16", "dtype": "float32"}, "float32"),
        ({}, None),
    ],
)
def test_the_dtype_is_the_one_that_transformers_takes(said, name):
    import transformers

    assert dtype_name(said) == name
    theirs = transformers.AutoConfig.for_model("qwen3", **json.loads(json.dumps(said))).dtype
    assert (theirs and str(theirs).removeprefix("torch.")) == name


def test_a_dtype_is_written_under_every_key_that_names_one():
    keys = ("dtype", "torch_dtype")
    both = {"dtype": "float32", "torch_dtype": "float16", "a": 1}
    assert with_dtype_name(both, "bfloat16") == {**dict.fromkeys(keys, "bfloat16"), "a": 1}
    assert with_dtype_name({"a": 1}, "bfloat16") == {"a": 1}
    assert with_dtype_name({"a": 1}, "bfloat16", always=True) == {"a": 1, "dtype": "bfloat16"}
