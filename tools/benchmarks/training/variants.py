"""Rows of the table: the same baseline, each with one option changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

BASELINE = "baseline"


@dataclass(frozen=True)
class Variant:
    """Settings of a row on top of the baseline's: keys of section ``training``, and variables.

    Attributes:
        environment: variables that a library reads at every call.
    """

    name: str
    keys: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def variants(gpu: bool) -> list[Variant]:
    """Return all rows, the baseline first.

    A row that this machine cannot run is asked for all the same: the table says why not.
    """
    # The other way than the device's own; Transformer Engine knows no other.
    experts = "experts one by one" if gpu else "experts grouped"
    return [
        Variant(BASELINE),
        Variant("fp8 blockwise", {"fp8": "blockwise"}),
        Variant("fp8 tensorwise", {"fp8": "tensorwise"}),
        Variant("fp8 parameters", {"fp8": "blockwise", "fp8_parameters": True}),
        Variant("fp8 delayed", {"fp8": "delayed"}),
        Variant("fp8 mxfp8", {"fp8": "mxfp8"}),
        Variant("recompute selective", {"recompute": "selective"}),
        Variant("recompute full", {"recompute": "full"}),
        Variant("dispatcher allgather", {"dispatcher": "allgather"}),
        Variant("overlap gradients", {"overlap_grad_reduce": True}),
        Variant("overlap both", {"overlap_grad_reduce": True, "overlap_param_gather": True}),
        Variant("optimizer offload", {"optimizer_offload": 1.0}),
        Variant(experts, {"grouped_experts": not gpu}),
        Variant("experts by cuBLAS", environment={"NVTE_USE_CUTLASS_GROUPED_GEMM": "0"}),
    ]


SMALL_MODEL: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "vocab_size": 2048,
    "hidden_size": 128,
    "intermediate_size": 256,
    "moe_intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "router_aux_loss_coef": 0.0,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "attention_bias": False,
    "tie_word_embeddings": False,
    "initializer_range": 0.02,
    "max_position_embeddings": 4096,
}
"""``config.json`` of a Qwen3-MoE with 2.4 million parameters, for machines without a GPU."""
