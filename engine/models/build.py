"""Building the megatron model that a Hugging Face config describes, for this rank's place."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig
from torch.nn.functional import silu

from engine.config.layout import LayoutConfig
from engine.config.stages import stage_layers
from engine.config.training import TrainingConfig
from engine.errors import RunError
from engine.models.family import HuggingFaceConfig, family_of
from engine.models.gpt import PolicyModel
from engine.models.torch_layers.spec import decoder_spec
from engine.platform import accelerator


def build(
    config: HuggingFaceConfig, layout: LayoutConfig, training: TrainingConfig
) -> list[PolicyModel]:
    """The part of the model that this rank holds, randomly initialised, on its device.

    Args:
        config: contents of ``config.json``.
        layout: the run's layout; its process groups must have been started.
        training: precision, and the levers of memory and speed.

    Returns:
        One model chunk for each virtual pipeline stage of this rank (one without ``vpp``).

    Raises:
        RunError: the family is unknown or uses a feature megatron cannot express.
    """
    transformer = transformer_config(config, layout, training)
    return [_chunk(config, transformer, layout, stage) for stage in range(layout.vpp)]


def _chunk(
    config: HuggingFaceConfig, transformer: TransformerConfig, layout: LayoutConfig, stage: int
) -> PolicyModel:
    vp_stage = stage if layout.vpp > 1 else None
    place = {"ignore_virtual": False, "vp_stage": vp_stage}
    model = PolicyModel(
        config=transformer,
        transformer_layer_spec=_decoder_spec(transformer, vp_stage),
        vocab_size=config["vocab_size"],
        max_sequence_length=config["max_position_embeddings"],
        pre_process=parallel_state.is_pipeline_first_stage(**place),
        post_process=parallel_state.is_pipeline_last_stage(**place),
        position_embedding_type="rope",
        rotary_base=rope_theta(config),
        share_embeddings_and_output_weights=config.get("tie_word_embeddings", False),
        vp_stage=vp_stage,
    )
    model.cuda(torch.cuda.current_device())
    _reduce_experts_over_their_own_ranks(model)
    return model


def _decoder_spec(
    transformer: TransformerConfig, vp_stage: int | None
) -> TransformerBlockSubmodules:
    if accelerator.has_gpu():
        return get_gpt_decoder_block_spec(transformer, True, vp_stage=vp_stage)
    return decoder_spec(transformer, vp_stage)


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
    config: HuggingFaceConfig, layout: LayoutConfig, training: TrainingConfig
) -> TransformerConfig:
    """megatron's description of the model: the family's part, the layout's, and how it computes.

    Raises:
        RunError: the family is unknown, or ``config.json`` lacks a key that it needs.
    """
    try:
        architecture = family_of(config).architecture(config)
    except KeyError as missing:
        raise RunError(f"model: config.json lacks the key {missing}") from None
    dtype: torch.dtype = getattr(torch, training.dtype)
    mtp = architecture.get("mtp_num_layers") or 0
    return TransformerConfig(
        **architecture,
        **_layout_arguments(layout, architecture["num_layers"], mtp),
        **_numerics(dtype),
    )


def _layout_arguments(layout: LayoutConfig, layers: int, mtp: int) -> dict[str, Any]:
    return {
        "tensor_model_parallel_size": layout.tp,
        "pipeline_model_parallel_size": layout.pp,
        "virtual_pipeline_model_parallel_size": layout.vpp if layout.vpp > 1 else None,
        "pipeline_model_parallel_layout": _stages(layout, layers, mtp) if layout.pp > 1 else None,
        "context_parallel_size": layout.cp,
        "expert_model_parallel_size": layout.ep,
        "expert_tensor_parallel_size": layout.etp,
        "sequence_parallel": layout.tp > 1,
        # Packed rows differ in length, so stages must tell each other the shape they send.
        "variable_seq_lengths": layout.pp > 1,
        "batch_p2p_comm": layout.pp == 1,
    }


def _stages(layout: LayoutConfig, layers: int, mtp: int) -> list[list[str]]:
    """What each stage holds, in megatron's words, in the order of computation."""
    stages = [
        ["decoder"] * len(held)
        for held in stage_layers(
            layers, layout.stages, layout.first_stage_layers, layout.last_stage_layers
        )
    ]
    stages[0].insert(0, "embedding")
    stages[-1] += ["mtp"] * mtp + ["loss"]
    return stages


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
        "pipeline_dtype": dtype,
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
