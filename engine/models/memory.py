"""Memory that a rank's training needs on a GPU, derived from sizes: plain arithmetic.

State is exact but for the allocator's rounding. Activations are what Transformer Engine 2.11's
layers, as megatron-core 0.16.1 builds them, keep for the backward pass; the benchmark of training
compares the sum with the peak that the allocator saw. Not counted: CUDA's context, communication
buffers, scratch space of single kernels, and the output layer of a prediction head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

from engine.config.layout import LayoutConfig
from engine.config.training import TrainingConfig
from engine.models.family import HuggingFaceConfig, family_of
from engine.models.flops import sparse_layers
from engine.models.sharding import Sharding, TensorShard

_FLOAT32 = 4
_LINEAR = ("linear_fc1.weight", "linear_fc2.weight", "linear_qkv.weight", "_proj.weight")
"""Ends of the keys of weights that are multiplied in FP8."""
_ROUTER_COPIES = 3
"""Float32 [tokens, experts]: logits, scores and the weights of the chosen."""


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes at the peak of a training step, on the rank that holds most.

    Attributes:
        parameters: what the layers multiply.
        fp8_copies: of bfloat16 weights, by row and by column, kept from microbatch to microbatch.
        gradients: megatron's float32 buffers.
        optimizer: masters and both moments, this rank's share.
        activations: of all microbatches that are under way on a stage.
        output_layer: a chunk's logits with their gradient, and the weight's gradient.
    """

    parameters: int
    fp8_copies: int
    gradients: int
    optimizer: int
    activations: int
    output_layer: int

    @property
    def total(self) -> int:
        """The sum."""
        return sum(astuple(self))


def training_memory(
    config: HuggingFaceConfig, layout: LayoutConfig, training: TrainingConfig, row_tokens: int
) -> TrainingMemory:
    """Derive it for packed rows of ``row_tokens`` tokens (all ranks of a row together).

    Raises:
        RunError: the family is unknown or uses a feature megatron cannot express.
    """
    architecture = family_of(config).architecture(config)
    holdings = Sharding(config, layout)
    tokens = -(-row_tokens // (layout.tp * layout.cp))
    found = []
    for place in holdings.rank_coordinates():
        if place.dp or place.cp or place.tp:
            continue  # alike
        kept = sum(
            kept_per_token(architecture, training, layer) for part in place.layers for layer in part
        )
        under_way = layout.pp - place.pp if layout.vpp == 1 else layout.pp
        last = place.pp == layout.pp - 1
        found.append(
            TrainingMemory(
                **_state(holdings.of(place), layout, training),
                activations=tokens * kept * under_way,
                output_layer=_output_layer(config, layout, training) if last else 0,
            )
        )
    return max(found, key=lambda memory: memory.total)


def _state(
    held: list[TensorShard], layout: LayoutConfig, training: TrainingConfig
) -> dict[str, int]:
    element = 2 if training.dtype == "bfloat16" else _FLOAT32
    trained = [piece for piece in held if not piece.whole.kind.float32]
    linear = sum(piece.elements for piece in trained if piece.whole.key.endswith(_LINEAR))
    everything = sum(piece.elements for piece in trained)
    experts = sum(piece.elements for piece in trained if piece.whole.expert is not None)
    sharing = layout.processes // (layout.pp * layout.tp)
    sharing_experts = layout.processes // (layout.pp * layout.ep * layout.etp)
    share = -(-(everything - experts) // sharing) - (-experts // sharing_experts)
    moments_and_master = 3 if element == 2 else 2
    copied = training.fp8 != "none" and not training.fp8_parameters
    return {
        # FP8 parameters take two bytes as well: they are kept by row and by column
        "parameters": sum(piece.bytes(element) for piece in held),
        "fp8_copies": 2 * linear if copied else 0,
        "gradients": _FLOAT32 * everything,
        "optimizer": round(
            moments_and_master * _FLOAT32 * share * (1 - training.optimizer_offload)
        ),
    }


def _output_layer(config: HuggingFaceConfig, layout: LayoutConfig, training: TrainingConfig) -> int:
    words, hidden = config["vocab_size"] // layout.tp, config["hidden_size"]
    element = 2 if training.dtype == "bfloat16" else _FLOAT32
    logits = training.logits_chunk_tokens * words * (_FLOAT32 + element)
    return logits + words * hidden * (_FLOAT32 + element)


@dataclass(frozen=True)
class _Numbers:
    """How activations are kept.

    Attributes:
        element: bytes of a number.
        multiplied: bytes of a number that a linear layer keeps as its input.
        dropped: modules that are recomputed.
    """

    element: int
    multiplied: int
    dropped: frozenset[str]


def kept_per_token(architecture: Mapping[str, Any], training: TrainingConfig, layer: int) -> int:
    """Bytes that decoder layer ``layer`` keeps for each token of this rank's part of a row.

    Under sequence parallelism a rank has 1/tp of the tokens between layers, and all tokens of 1/tp
    of the columns within: as many numbers.

    Args:
        architecture: of the whole model, ``Family.architecture``.
    """
    hidden = architecture["hidden_size"]
    element = 2 if training.dtype == "bfloat16" else _FLOAT32
    if training.recompute == "full":
        return -(-element * hidden // training.recompute_layers)
    multiplied = 1 if training.fp8 != "none" else element
    numbers = _Numbers(element, multiplied, frozenset(training.recomputed))
    inputs = 2 * element * hidden  # of both norms
    attention = _attention(architecture, numbers)
    return inputs + attention + _feed_forward(architecture, layer, numbers)


def _norm(architecture: Mapping[str, Any], numbers: _Numbers, *, alone: bool) -> int:
    """What a norm hands on; it is recomputed only where it stands ``alone``, not in a linear."""
    again = alone and "layernorm" in numbers.dropped
    return 0 if again else numbers.multiplied * int(architecture["hidden_size"])


def _attention(architecture: Mapping[str, Any], numbers: _Numbers) -> int:
    """From the norm before it to the sum with the residual."""
    heads = architecture["num_attention_heads"]
    statistics = 0 if "core_attn" in numbers.dropped else _FLOAT32 * heads
    if architecture.get("multi_latent_attention"):
        query = heads * (architecture["qk_head_dim"] + architecture["qk_pos_emb_head_dim"])
        value = heads * architecture["v_head_dim"]
        keys_and_values = heads * (architecture["qk_head_dim"] + architecture["v_head_dim"])
        ranks = (architecture.get("q_lora_rank") or 0) + architecture["kv_lora_rank"]
        compressed = (numbers.element + numbers.multiplied) * ranks  # before and after their norms
        again = "mla_up_proj" in numbers.dropped
        upwards = 0 if again else numbers.element * (2 * query + keys_and_values)
        norm = _norm(architecture, numbers, alone=True)
        return norm + compressed + upwards + numbers.element * value + statistics
    groups = architecture.get("num_query_groups") or heads
    size = architecture.get("kv_channels") or architecture["hidden_size"] // heads
    query, key = heads * size, groups * size
    together = query + 2 * key  # which the values are a view of
    rotated = query + key
    norm = _norm(architecture, numbers, alone=False)
    return norm + numbers.element * (together + rotated + query) + statistics


def _feed_forward(architecture: Mapping[str, Any], layer: int, numbers: _Numbers) -> int:
    """From the norm before it to the sum with the residual."""
    hidden, columns = architecture["hidden_size"], architecture["ffn_hidden_size"]
    sparse = sparse_layers(architecture)[layer]
    norm = _norm(architecture, numbers, alone=sparse)
    if not sparse:
        return norm + (0 if "mlp" in numbers.dropped else _glu(columns, numbers))
    if "moe" in numbers.dropped:
        return norm
    columns = architecture.get("moe_ffn_hidden_size") or columns
    activation = 0 if "moe_act" in numbers.dropped else numbers.multiplied * columns
    each = numbers.multiplied * hidden + numbers.element * 2 * columns + activation
    router = _ROUTER_COPIES * _FLOAT32 * architecture["num_moe_experts"] + numbers.element * hidden
    shared = architecture.get("moe_shared_expert_intermediate_size") or 0
    again = "shared_experts" in numbers.dropped
    experts = router + architecture["moe_router_topk"] * each
    return norm + experts + (0 if again else _glu(shared, numbers))


def _glu(columns: int, numbers: _Numbers) -> int:
    """Gate and up, and their product."""
    return numbers.element * 2 * columns + numbers.multiplied * columns
