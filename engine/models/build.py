"""Building the megatron model that a Hugging Face config describes, for this rank's place."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec
from megatron.core.transformer.module import Float16Module
from megatron.core.transformer.transformer_config import TransformerConfig
from torch.nn.functional import silu

from engine.config.layout import LayoutConfig
from engine.errors import RunError
from engine.models.family import HuggingFaceConfig, family_of
from engine.models.torch_layers.spec import decoder_spec
from engine.platform import accelerator


def build(config: HuggingFaceConfig, layout: LayoutConfig, dtype: torch.dtype) -> torch.nn.Module:
    """The part of the model that this rank holds, randomly initialised, on its device.

    Args:
        config: contents of ``config.json``.
        layout: the run's layout; its process groups must have been started.
        dtype: of parameters and activations, float32 or bfloat16.

    Raises:
        RunError: the family is unknown or uses a feature megatron cannot express.
    """
    transformer = transformer_config(config, layout, dtype)
    gpu = accelerator.has_gpu()
    spec = get_gpt_decoder_block_spec(transformer, True) if gpu else decoder_spec(transformer)
    model = GPTModel(
        config=transformer,
        transformer_layer_spec=spec,
        vocab_size=config["vocab_size"],
        max_sequence_length=config["max_position_embeddings"],
        pre_process=parallel_state.is_pipeline_first_stage(),
        post_process=parallel_state.is_pipeline_last_stage(),
        position_embedding_type="rope",
        rotary_base=rope_theta(config),
        share_embeddings_and_output_weights=config.get("tie_word_embeddings", False),
    )
    model.cuda(torch.cuda.current_device())
    _reduce_experts_over_their_own_ranks(model)
    return model if dtype == torch.float32 else Float16Module(transformer, model)


def _reduce_experts_over_their_own_ranks(model: torch.nn.Module) -> None:
    """Mark every expert's parameters for the expert data-parallel group.

    megatron-core 0.16.1 marks them only if ep > 1 (tensor_parallel/layers.py, ``expert_parallel``).
    With ep = 1 and tp > 1, where each tensor-parallel rank sends its own tokens through its own
    copy of the experts, their gradients would silently not be summed.
    """
    for name, parameter in model.named_parameters():
        if ".experts." in name:
            parameter.allreduce = False


def rope_theta(config: HuggingFaceConfig) -> float:
    """The base of the rotary position embedding: transformers 5 and 4 keep it in two places."""
    return float(config.get("rope_parameters", config)["rope_theta"])


def transformer_config(
    config: HuggingFaceConfig, layout: LayoutConfig, dtype: torch.dtype
) -> TransformerConfig:
    """megatron's description of the model: the family's part, the layout's, and how it computes.

    Raises:
        RunError: the family is unknown, or ``config.json`` lacks a key that it needs.
    """
    try:
        architecture = family_of(config).architecture(config)
    except KeyError as missing:
        raise RunError(f"model: config.json lacks the key {missing}") from None
    return TransformerConfig(**architecture, **_layout_arguments(layout, dtype), **_numerics(dtype))


def _layout_arguments(layout: LayoutConfig, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "tensor_model_parallel_size": layout.tp,
        "pipeline_model_parallel_size": layout.pp,
        "expert_model_parallel_size": layout.ep,
        "expert_tensor_parallel_size": 1,
        "sequence_parallel": layout.tp > 1,
        "pipeline_dtype": dtype,
        # Packed rows differ in length, so stages must tell each other the shape they send.
        "variable_seq_lengths": layout.pp > 1,
        "batch_p2p_comm": layout.pp == 1,
    }


def _numerics(dtype: torch.dtype) -> dict[str, Any]:
    gpu = accelerator.has_gpu()
    return {
        "normalization": "RMSNorm",
        "gated_linear_unit": True,
        "activation_func": silu,
        "add_bias_linear": False,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "params_dtype": dtype,
        "bf16": dtype == torch.bfloat16,
        "moe_router_dtype": "fp32",
        "moe_token_dispatcher_type": "alltoall",
        "moe_grouped_gemm": gpu,
        "calculate_per_token_loss": True,
        "bias_dropout_fusion": gpu,
        "masked_softmax_fusion": gpu,
        "bias_activation_fusion": gpu,
        "gradient_accumulation_fusion": False,
        "deallocate_pipeline_outputs": False,
    }
