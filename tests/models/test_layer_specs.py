"""Our layers' checkpoint keys are those that Transformer Engine's layers would have.

Transformer Engine cannot be imported without a GPU, but megatron's spec of its layers can be read:
which class stands at which place, and so which tensors there are.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass

import pytest
from megatron.core.extensions import transformer_engine as te
from megatron.core.extensions import transformer_engine_spec_provider as provider
from megatron.core.models.gpt import gpt_layer_specs
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer import multi_latent_attention
from megatron.core.transformer.multi_token_prediction import get_mtp_layer_spec_for_backend
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_config import MLATransformerConfig, TransformerConfig

from engine.models.torch_layers import (
    RMSNorm,
    accepted_by_latent_attention,
    layer_specs,
    mtp_layer_spec,
)
from engine.models.torch_layers.replicated_linear import ReplicatedLinear

WEIGHT = {"weight"}
TENSORS = [
    (te.TELayerNormColumnParallelLinear, {"layer_norm_weight", "weight"}),
    *((kind, WEIGHT) for kind in (te.TELinear, te.TEColumnParallelLinear)),
    *((kind, WEIGHT) for kind in (te.TERowParallelLinear, te.TENorm)),
    *((kind, WEIGHT) for kind in (ColumnParallelLinear, RowParallelLinear, ReplicatedLinear)),
    (RMSNorm, WEIGHT),
]


def keys(spec, path=""):
    """Keys of the tensors that a module of this spec has in a checkpoint."""
    found = {f"{path}{name}" for kind, names in TENSORS if kind is spec for name in names}
    inner = spec.submodules if isinstance(spec, ModuleSpec) else spec
    if is_dataclass(inner) and not isinstance(inner, type):
        for field in fields(inner):
            found |= keys(getattr(inner, field.name), f"{path}{field.name}.")
    renamed = getattr(inner, "sharded_state_dict_keys_map", {})
    for ours, theirs in renamed.items():
        found = {key.replace(path + ours, path + theirs, 1) for key in found}
    return {key.replace(".layer_norm.", ".final_layernorm.") for key in found}


def config(latent: bool, qk_norm: bool):
    kind = MLATransformerConfig if latent else TransformerConfig
    return kind(
        num_layers=2,
        hidden_size=16,
        num_attention_heads=2,
        num_moe_experts=4,
        moe_layer_freq=[0, 1],
        moe_shared_expert_intermediate_size=8,
        qk_layernorm=qk_norm,
        add_bias_linear=False,
    )


@pytest.fixture(autouse=True)
def readable(monkeypatch):
    monkeypatch.setattr(gpt_layer_specs, "TESpecProvider", provider.TESpecProvider, raising=False)
    monkeypatch.setattr(provider, "is_te_min_version", lambda version: True)


@pytest.mark.parametrize("layer", [0, 1], ids=["dense", "experts"])
@pytest.mark.parametrize(("latent", "qk_norm"), [(False, False), (False, True), (True, True)])
def test_keys_equal_transformer_engines(latent, qk_norm, layer):
    # Grouped experts' state is interchangeable with sequential experts' (experts.py:768).
    theirs = gpt_layer_specs.get_gpt_layer_with_transformer_engine_spec(
        num_experts=4 if layer else None,
        moe_grouped_gemm=False,
        qk_layernorm=qk_norm,
        multi_latent_attention=latent,
    )
    ours = layer_specs(config(latent, qk_norm))[layer]
    assert keys(ours) == keys(theirs)
    assert any("layer_norm_weight" in key for key in keys(ours))
    mtp = get_mtp_layer_spec_for_backend(theirs, provider.TESpecProvider())
    assert keys(mtp_layer_spec(ours)) == keys(mtp)
    assert "eh_proj.weight" in keys(mtp)


def test_latent_attention_takes_our_layer_only_while_ours_are_built():
    of_megatron = multi_latent_attention.TELinear
    with pytest.raises(KeyError), accepted_by_latent_attention():
        assert multi_latent_attention.TELinear is ReplicatedLinear
        raise KeyError
    assert multi_latent_attention.TELinear is of_megatron
