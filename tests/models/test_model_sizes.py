"""Sizes derived from config.json equal those of the TransformerConfig that megatron is given."""

from __future__ import annotations

from dataclasses import fields

import pytest
from small_models import MODELS

from engine.config.layout import LayoutConfig
from engine.config.model_sizes import ModelSizes, model_sizes
from engine.config.training import TrainingConfig
from engine.models.build import transformer_config
from engine.models.published import NAMES, published
from engine.models.tensor_shapes import KINDS

CONFIGS = {
    **{name: published(name) for name in NAMES},
    **MODELS,
    "mixtral, a key of others": {**MODELS["mixtral, tied, 4 of 5"], "moe_intermediate_size": 28},
}
ONE = LayoutConfig(processes=1)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_both_vocabularies_agree(config):
    training = TrainingConfig(dtype="float32", tokens_per_microbatch=64)
    theirs = vars(transformer_config(config, ONE, training))
    sizes = model_sizes(config)
    expected = {
        "layers": theirs["num_layers"],
        "hidden": theirs["hidden_size"],
        "heads": theirs["num_attention_heads"],
        "columns": theirs["ffn_hidden_size"],
        "experts": theirs["num_moe_experts"] or 0,
        "mtp": theirs["mtp_num_layers"] or 0,
        "shared_columns": theirs["moe_shared_expert_intermediate_size"] or 0,
        "vocabulary": config["vocab_size"],  # no part of megatron's config
        **_attention(theirs),
        **_experts(theirs),
    }
    assert {field.name: getattr(sizes, field.name) for field in fields(sizes)} == expected
    pattern = theirs["moe_layer_freq"] if sizes.experts else [0] * sizes.layers
    if pattern == 1:  # megatron's default: every layer
        pattern = [1] * sizes.layers
    assert [sizes.is_sparse(layer) for layer in range(sizes.layers)] == [bool(p) for p in pattern]


def _attention(theirs: dict) -> dict[str, int]:
    if not theirs["multi_latent_attention"]:
        return {
            "groups": theirs["num_query_groups"],
            "query_channels": theirs["kv_channels"],
            "value_channels": theirs["kv_channels"],
            "rotated_channels": 0,
            "query_rank": 0,
            "key_value_rank": 0,
        }
    return {
        "groups": 0,
        "query_channels": theirs["qk_head_dim"] + theirs["qk_pos_emb_head_dim"],
        "value_channels": theirs["v_head_dim"],
        "rotated_channels": theirs["qk_pos_emb_head_dim"],
        "query_rank": theirs["q_lora_rank"] or 0,
        "key_value_rank": theirs["kv_lora_rank"],
    }


def _experts(theirs: dict) -> dict[str, int]:
    if not theirs["num_moe_experts"]:
        return {"expert_columns": 0, "chosen_experts": 0, "dense_layers": theirs["num_layers"]}
    pattern = theirs["moe_layer_freq"]
    return {
        "expert_columns": theirs["moe_ffn_hidden_size"],
        "chosen_experts": theirs["moe_router_topk"],
        "dense_layers": 0 if pattern == 1 else pattern.count(0),
    }


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize(("tp", "etp"), [(1, 1), (2, 1), (2, 2)])
def test_a_ranks_part_is_its_share_of_each_layer(config, tp, etp):
    whole = model_sizes(config)
    part = whole.on_rank(tp, etp)
    assert (part.hidden, part.layers, part.experts) == (whole.hidden, whole.layers, whole.experts)
    assert part.query_columns == whole.heads // tp * whole.query_channels
    assert part.expert_columns == whole.expert_columns // etp
    assert part.columns == whole.columns // tp
    if whole.groups:
        assert part.groups == max(1, whole.groups // tp)


def test_every_axis_of_a_tensor_is_named_by_a_size():
    for kind in KINDS.values():
        for name in kind.axes:
            assert isinstance(name, int) or hasattr(
                ModelSizes(layers=1, vocabulary=1, heads=1), name
            ), name
