"""A folder whose tensors have other names says by whom it was saved, and what to do."""

from __future__ import annotations

import pytest

from engine.errors import RunError
from engine.weights.tensor_maps import check_names, maps_of
from engine.weights.unexpected_names import likely_cause

CONFIG = {
    "model_type": "qwen2",
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e4,
}
NEEDED = {name for tensor_map in maps_of(CONFIG).values() for name in tensor_map.names}
LAST = {name for name in NEEDED if name.startswith("model.layers.2.")}
ADAPTER = {f"model.layers.1.mlp.up_proj.lora_{part}.weight" for part in "AB"}


def cause(held, config=CONFIG):
    return likely_cause(config, NEEDED - held, held - NEEDED)


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (NEEDED, ""),
        ({f"base_model.model.{name}" for name in NEEDED}, "begin with base_model.model., as those"),
        ({f"module.{name}" for name in NEEDED}, "save the model inside (.module)"),
        ({f"_orig_mod.{name}" for name in NEEDED}, "a compiled model"),
        ({f"model.{name}" for name in NEEDED}, "save the model itself"),
        ({name.removeprefix("model.") for name in NEEDED}, "saved without model. before its names"),
        (NEEDED - {"lm_head.weight"}, "set tie_word_embeddings to true"),
        (NEEDED | ADAPTER, "an adapter lies beside the weights"),
        (NEEDED - LAST, "config.json says num_hidden_layers 3, the folder holds 2"),
        (NEEDED | {name.replace("s.2.", "s.3.") for name in LAST}, "the folder holds 4"),
        (NEEDED - {min(LAST)} - {"model.layers.1.input_layernorm.weight"}, ""),
        (NEEDED | {"v_head.weight"}, ""),
    ],
)
def test_the_likely_cause_is_named(held, words):
    found = cause(set(held))
    assert words in found if words else found == ""


def test_a_prediction_head_is_named_where_it_is_missing():
    config = {**CONFIG, "num_nextn_predict_layers": 1}
    head = {f"model.layers.3.{name}.weight" for name in ("eh_proj", "enorm", "hnorm")}
    assert "num_nextn_predict_layers to 0" in likely_cause(config, head, set())
    assert likely_cause(config, set(), {"v_head.weight"}) == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.layers.0.mlp.up_proj.biases", "MLX"),
        ("model.layers.0.mlp.up_proj.W_q", "HQQ"),
        ("model.layers.0.mlp.up_proj.codebooks", "AQLM"),
        ("model.layers.0.mlp.up_proj.weight._data", "Quanto"),
        ("model.layers.0.mlp.up_proj.weight_scale_inv", "lacks its quantization_config"),
    ],
)
def test_quantised_weights_are_known_by_their_names(tmp_path, name, words):
    with pytest.raises(RunError, match="holds quantised weights") as caught:
        check_names(tmp_path, NEEDED, {*NEEDED, name})
    assert words in str(caught.value)
