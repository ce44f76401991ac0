"""Families say what they express: every name once, and one sentence for what they cannot."""

from __future__ import annotations

import pytest
import torch
from small_models import MODELS, PREDICTING

from engine.errors import RunError
from engine.models.family import family_of
from engine.models.weight_rules import Copies, expand

DEEPSEEK = MODELS["deepseek_v3, yarn, 1 of 2 groups"]


def names_of(config):
    return [
        name for tensor in expand(family_of(config).rules(config)).values() for name in tensor.names
    ]


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_every_hugging_face_name_is_used_exactly_once(config):
    names = names_of(config)
    assert len(names) == len(set(names)) and "model.embed_tokens.weight" in names
    assert ("lm_head.weight" in names) != config["tie_word_embeddings"]


@pytest.mark.parametrize(("model", "depths"), PREDICTING.values(), ids=PREDICTING)
def test_prediction_depths_are_the_layers_after_the_last(model, depths):
    config = {**MODELS[model], "num_nextn_predict_layers": depths}
    more = set(names_of(config)) - set(names_of(MODELS[model]))
    assert {int(name.split(".")[2]) for name in more} == {3 + depth for depth in range(depths)}
    assert f"model.layers.{2 + depths}.shared_head.head.weight" in more


@pytest.mark.parametrize(
    ("base", "change", "message"),
    [
        ("qwen3", {"attention_bias": True}, "attention_bias True"),
        ("mixtral", {"sliding_window": 4096}, "sliding_window 4096"),
        ("mixtral", {"num_experts_per_tok": 1}, "num_experts_per_tok 1"),
        ("glm4_moe", {"topk_group": 1}, "4 of 9 experts from 1 of 3 groups"),
        ("deepseek_v2, greedy, no query rank", {"norm_topk_prob": True}, "norm_topk_prob True"),
        ("deepseek_v2, greedy, no query rank", {"topk_method": "noaux_tc"}, "topk_method 'noaux"),
        ("deepseek_v2, yarn, 2 of 4 groups", {"n_group": 5}, "5 of 12 experts from 2 of 5"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window True"),
        ("llama, tied", {"mlp_bias": True}, "mlp_bias True"),
        (
            "llama, tied",
            {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}},
            "longrope",
        ),
        ("deepseek_v3, plain rope", {"scoring_func": "softmax"}, "scoring_func 'softmax'"),
        ("deepseek_v3, plain rope", {"n_group": 3}, "2 of 8 experts from 1 of 3 groups"),
        (
            "deepseek_v3, plain rope",
            {"n_group": 8, "topk_group": 1},
            "2 of 8 experts from 1 of 8 groups",
        ),
    ],
)
def test_what_is_not_expressed_is_refused_by_name(base, change, message):
    config = {**MODELS[base], **change}
    with pytest.raises(RunError, match=message):
        family_of(config).architecture(config)


def test_glm_says_which_part_of_a_head_turns():
    config = {**MODELS["glm4_moe"], "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
    with pytest.raises(RunError, match="lacks the key 'partial_rotary_factor'"):
        family_of(config).architecture(config)
    published = {**config, "partial_rotary_factor": 0.5}
    assert family_of(published).architecture(published)["add_qkv_bias"]


def test_the_bias_moves_at_deepseeks_rate():
    architecture = family_of(DEEPSEEK).architecture(DEEPSEEK)
    assert architecture["moe_router_bias_update_rate"] == 0.001
    assert architecture["moe_layer_freq"] == [0, 1, 1]


def test_copies_that_differ_are_refused():
    tensor = torch.ones(2, 3)
    first, second = Copies(2).split(tensor)
    assert torch.equal(first, second) and first.data_ptr() != second.data_ptr()
    assert Copies(2).join([first, second]) is first
    with pytest.raises(ValueError, match="copies"):
        Copies(2).join([first, second + 1])
