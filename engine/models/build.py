"""Build the megatron model that a Hugging Face config describes, for this rank's coordinates."""

from __future__ import annotations

import math
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.transformer.multi_latent_attention import MLASelfAttention
from megatron.core.transformer.transformer_config import MLATransformerConfig, TransformerConfig

from engine.config.layout import LayoutConfig
from engine.config.model_sizes import model_sizes
from engine.config.stages import stage_layers
from engine.config.training import TrainingConfig
from engine.models.family import HuggingFaceConfig, family_of
from engine.models.gpt import GPTBackbone
from engine.models.layer_specs import decoder_spec, module_build_context, mtp_spec
from engine.models.rope import inverse_frequencies
from engine.models.rope_settings import GROUPED, attention_factor, rope_settings, rotated_part
from engine.models.score_layer import INITIALIZER_RANGE
from engine.models.sequence_classifier import as_built, is_sequence_classifier
from engine.models.transformer_config_args import transformer_config_args

LATENT_NORM_EPSILON = 1e-6
"""Of the norms of compressed queries, keys and values in latent attention."""


def build(
    config: HuggingFaceConfig, layout: LayoutConfig, training: TrainingConfig
) -> list[GPTBackbone]:
    """The part of the model that this rank holds, randomly initialised, on its device.

    Args:
        config: contents of ``config.json``; that of a sequence classification model gives one
            (``engine.models.sequence_classifier``).
        layout: the run's layout; its process groups must have been started.
        training: precision, and the options of memory and speed.

    Returns:
        One model chunk for each virtual pipeline stage of this rank (one without ``vpp``).

    Raises:
        RunError: the family is unknown or uses a feature megatron cannot express.
    """
    config = as_built(config)
    transformer = transformer_config(config, layout, training)
    return [_chunk(config, transformer, layout, stage) for stage in range(layout.vpp)]


def _chunk(
    config: HuggingFaceConfig, transformer: TransformerConfig, layout: LayoutConfig, stage: int
) -> GPTBackbone:
    vp_stage = stage if layout.vpp > 1 else None
    place = {"ignore_virtual": False, "vp_stage": vp_stage}
    with module_build_context():
        model = GPTBackbone(
            config=transformer,
            transformer_layer_spec=decoder_spec(transformer, vp_stage),
            mtp_block_spec=mtp_spec(transformer, vp_stage),
            vocab_size=config["vocab_size"],
            max_sequence_length=config["max_position_embeddings"],
            pre_process=parallel_state.is_pipeline_first_stage(**place),
            post_process=parallel_state.is_pipeline_last_stage(**place),
            position_embedding_type="rope",
            share_embeddings_and_output_weights=config.get("tie_word_embeddings", False),
            vp_stage=vp_stage,
            score_deviation=_score_deviation(config),
        )
    model.cuda(torch.cuda.current_device())
    if transformer.multi_latent_attention:
        _set_latent_norm_epsilon(model)
    else:
        _set_frequencies(model, config)
    _reduce_experts_over_their_own_ranks(model)
    _count_replicated_weights_once(model)
    return model


def _score_deviation(config: HuggingFaceConfig) -> float | None:
    if not is_sequence_classifier(config):
        return None
    return float(config.get("initializer_range", INITIALIZER_RANGE))


def _reduce_experts_over_their_own_ranks(model: torch.nn.Module) -> None:
    """Mark every expert's parameters for the expert data-parallel group.

    megatron-core 0.16.1 marks them only if ep > 1 (tensor_parallel/layers.py, ``expert_parallel``).
    With ep = 1 and tp > 1, where each tensor-parallel rank sends its own tokens through its own
    copy of the experts, their gradients would silently not be summed.
    """
    for name, parameter in model.named_parameters():
        if ".experts." in name:
            parameter.allreduce = False


def _count_replicated_weights_once(model: torch.nn.Module) -> None:
    """Mark latent attention's down-projections as copies of one another on tensor-parallel ranks.

    Transformer Engine 2.11 marks every linear layer's weight as one rank's part (linear.py:1325),
    and the gradient's norm would count these once for each rank.
    """
    for name, parameter in model.named_parameters():
        if name.endswith(("linear_q_down_proj.weight", "linear_kv_down_proj.weight")):
            parameter.tensor_model_parallel = False


def _set_frequencies(model: torch.nn.Module, config: HuggingFaceConfig) -> None:
    """Give the rotary embedding its family's frequencies.

    megatron-core 0.16.1 knows Llama 3's stretching only with fixed wavelengths
    (rotary_pos_embedding.py, ``_apply_scaling``).
    """
    settings = rope_settings(config, GROUPED, partial_rotation=True)
    rotated = rotated_part(config) or 1.0  # the other channels of a head are left alone
    channels = int(model_sizes(config).query_channels * rotated)
    frequencies = inverse_frequencies(settings, channels)
    model.rotary_pos_emb.inv_freq = frequencies.to(torch.cuda.current_device())


def _set_latent_norm_epsilon(model: torch.nn.Module) -> None:
    """Give the norms inside latent attention DeepSeek's epsilon, whatever ``rms_norm_eps`` says.

    Its published code builds them with their default; megatron gives them the layers' epsilon.
    """
    for module in model.modules():
        if isinstance(module, MLASelfAttention):
            for name in ("q_layernorm", "kv_layernorm", "linear_q_up_proj", "linear_kv_up_proj"):
                norm = getattr(module, name, None)  # Transformer Engine's linear holds its norm
                if norm is not None and hasattr(norm, "eps"):
                    norm.eps = LATENT_NORM_EPSILON


def transformer_config(
    config: HuggingFaceConfig, layout: LayoutConfig, training: TrainingConfig
) -> TransformerConfig:
    """megatron's description of the model: the family's part, the layout's, and how it computes.

    Raises:
        RunError: the family is unknown, or ``config.json`` lacks a key that it needs.
    """
    architecture = family_of(config).architecture(config)
    mtp = architecture.get("mtp_num_layers") or 0
    latent = "multi_latent_attention" in architecture
    kind = MLATransformerConfig if latent else TransformerConfig
    built = kind(
        **architecture,
        **_layout_arguments(layout, architecture["num_layers"], mtp),
        **transformer_config_args(training, layout, model_sizes(config)),
    )
    if not latent:
        settings = rope_settings(as_built(config), GROUPED, partial_rotation=True)
        _scale_rotation(built, attention_factor(settings))
    return built


def _scale_rotation(transformer: TransformerConfig, factor: float) -> None:
    """Have grouped-query attention multiply the cosine and sine of its rotary embedding.

    It asks for 0.1 mscale ln(scaling factor) + 1 by attributes that are no fields of the class
    (yarn_rotary_pos_embedding.py, ``_yarn_get_concentration_factor_from_config``). Transformer
    Engine's fused kernel for packed rows would leave the factor out (rope_utils.py:287).
    """
    if factor == 1:
        return
    transformer.yarn_rotary_scaling_factor = math.e
    transformer.yarn_mscale = 10 * (factor - 1)
    transformer.yarn_mscale_all_dim = 0.0
    transformer.apply_rope_fusion = False


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
        # Packed rows differ in length, so stages must tell each other the shape they send. Not so
        # between interleaved stages, where the exchange of shapes can block for ever (each side
        # waits to be heard before it listens, schedules.py:1440 and 1762): there rows are equal.
        "variable_seq_lengths": layout.pp > 1 and layout.vpp == 1,
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
