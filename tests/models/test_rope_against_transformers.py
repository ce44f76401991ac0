"""Rotary settings mean what they mean to transformers, in every form that a config.json has."""

from __future__ import annotations

import copy

import pytest
import torch

from engine.models.rope import inverse_frequencies
from engine.models.rope_settings import GROUPED, attention_factor, rope_settings

pytestmark = pytest.mark.slow  # transformers starts in seven seconds

SIZES = {
    "vocab_size": 67,
    "hidden_size": 96,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 22,
    "num_hidden_layers": 2,
    "max_position_embeddings": 640,
}
YARN = {"rope_type": "yarn", "factor": 5.0, "original_max_position_embeddings": 128}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 3.0}
PLAIN = {"rope_type": "default", "rope_theta": 7e3}
FORMS = {
    "plain": {"rope_theta": 2e4},
    "plain, as 5 writes it": {"rope_parameters": PLAIN},
    "linear of old": {"rope_theta": 2e4, "rope_scaling": {"type": "linear", "factor": 3.0}},
    "both kinds of type": {
        "rope_theta": 2e4,
        "rope_scaling": {"type": "linear", "rope_type": "yarn", "factor": 3.0},
    },
    "rope_scaling beside rope_parameters": {
        "rope_parameters": PLAIN,
        "rope_scaling": {**YARN, "rope_theta": 4e4},
    },
    "rope_scaling beside rope_parameters, theta outside": {
        "rope_theta": 9e5,
        "rope_parameters": PLAIN,
        "rope_scaling": LLAMA3,
    },
    "an empty rope_scaling beside rope_parameters": {"rope_parameters": PLAIN, "rope_scaling": {}},
    "a null rope_scaling beside rope_parameters": {"rope_parameters": PLAIN, "rope_scaling": None},
    "two thetas": {"rope_theta": 3.0, "rope_parameters": PLAIN},
    "llama3 without its length of training": {"rope_theta": 2e4, "rope_scaling": LLAMA3},
    "yarn": {"rope_theta": 2e4, "rope_scaling": YARN},
    "yarn without its length of training": {
        "rope_theta": 2e4,
        "rope_scaling": {"rope_type": "yarn", "factor": 3.0},
    },
    "yarn, nothing stretched": {"rope_theta": 2e4, "rope_scaling": {**YARN, "factor": 1.0}},
    "yarn, squeezed": {"rope_theta": 2e4, "rope_scaling": {**YARN, "factor": 0.5}},
    "yarn, betas of zero": {
        "rope_theta": 2e4,
        "rope_scaling": {**YARN, "beta_fast": 0.0 + 8, "beta_slow": 2},
    },
    "yarn, not truncated": {"rope_theta": 2e4, "rope_scaling": {**YARN, "truncate": False}},
    "yarn, one mscale": {"rope_theta": 2e4, "rope_scaling": {**YARN, "mscale": 0.7}},
    "yarn, an mscale of zero": {
        "rope_theta": 2e4,
        "rope_scaling": {**YARN, "mscale": 0.7, "mscale_all_dim": 0},
    },
    "yarn, two mscales": {
        "rope_theta": 2e4,
        "rope_scaling": {**YARN, "mscale": 0.7, "mscale_all_dim": 0.3},
    },
    "yarn, a factor of its own": {
        "rope_theta": 2e4,
        "rope_scaling": {**YARN, "attention_factor": 0.9, "mscale": 0.7, "mscale_all_dim": 0.3},
    },
    "yarn, a factor of zero": {
        "rope_theta": 2e4,
        "rope_scaling": {**YARN, "attention_factor": 0.0},
    },
    "yarn, bounds that meet": {
        "rope_theta": 2e4,
        "rope_scaling": {**YARN, "original_max_position_embeddings": 3},
    },
}


def test_llamas_first_versions_leave_out_theta():
    from transformers import AutoConfig

    theirs = AutoConfig.for_model("llama", **SIZES).rope_parameters
    assert rope_settings({**SIZES, "model_type": "llama"}, GROUPED) == theirs


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "qwen3_moe"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_means_what_it_means_to_transformers(form, model_type):
    from transformers import AutoConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = {**SIZES, "model_type": model_type, **form}
    theirs = AutoConfig.for_model(**copy.deepcopy(config))
    settings = rope_settings(config, GROUPED)
    told = {k: v for k, v in theirs.rope_parameters.items() if k != "type"}
    assert {key: settings.get(key) for key in told} == told
    own = inverse_frequencies(settings, SIZES["head_dim"])
    if settings["rope_type"] == "default":
        exponents = torch.arange(0, SIZES["head_dim"], 2).float() / SIZES["head_dim"]
        expected, factor = 1.0 / settings["rope_theta"] ** exponents, 1.0
    else:
        expected, factor = ROPE_INIT_FUNCTIONS[settings["rope_type"]](theirs)
    assert torch.allclose(own, expected, rtol=1e-6, atol=0)
    assert attention_factor(settings) == pytest.approx(factor, rel=1e-12)
