"""Derive the GPU memory that a rank's training needs from a model's sizes.

State is exact but for the allocator's rounding. Activations are what Transformer Engine 2.11's
layers, as megatron-core 0.16.1 builds them, keep for the backward pass; the benchmark of training
compares the sum with the peak that the allocator saw. Not counted: CUDA's context, communication
buffers, scratch space of single kernels, and the output layer of a prediction head.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

from engine.config.layout import LayoutConfig
from engine.config.model_sizes import ModelSizes, model_sizes
from engine.config.training import TrainingConfig
from engine.models.family import HuggingFaceConfig
from engine.models.sequence_classifier import is_sequence_classifier
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
        output_layer: a chunk's logits with their gradient, and the weight's gradient; 0 for a
            sequence classification model.
    """

    parameters: int
    fp8_copies: int
    gradients: int
    optimizer: int
    activations: int
    output_layer: int

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(astuple(self))


def training_memory(
    config: HuggingFaceConfig, layout: LayoutConfig, training: TrainingConfig, row_tokens: int
) -> TrainingMemory:
    """Return it for packed rows of ``row_tokens`` tokens (all ranks of a row together).

    Raises:
        RunError: the family is unknown or uses a feature megatron cannot express.
    """
    sizes, sharding = model_sizes(config), Sharding(config, layout)
    tokens = -(-row_tokens // (layout.tp * layout.cp))
    found = []
    for coordinates in sharding.rank_coordinates():
        if coordinates.dp or coordinates.cp or coordinates.tp:
            continue  # alike
        kept = sum(
            kept_per_token(sizes, training, layer)
            for stage in coordinates.layers
            for layer in stage
        )
        under_way = layout.pp - coordinates.pp if layout.vpp == 1 else layout.pp
        predicts = coordinates.pp == layout.pp - 1 and not is_sequence_classifier(config)
        found.append(
            TrainingMemory(
                **_state(sharding.of(coordinates), layout, training),
                activations=tokens * kept * under_way,
                output_layer=_output_layer(sizes, layout, training) if predicts else 0,
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


def _output_layer(sizes: ModelSizes, layout: LayoutConfig, training: TrainingConfig) -> int:
    words, hidden = sizes.vocabulary // layout.tp, sizes.hidden
    element = 2 if training.dtype == "bfloat16" else _FLOAT32
    logits = training.logits_chunk_tokens * words * (_FLOAT32 + element)
    return logits + words * hidden * (_FLOAT32 + element)


@dataclass(frozen=True)
class _Numbers:
    """Precision of activations, and modules that keep none.

    Attributes:
        element: bytes of a number.
        multiplied: bytes of a number that a linear layer keeps as its input.
        dropped: modules that are recomputed.
    """

    element: int
    multiplied: int
    dropped: frozenset[str]


def kept_per_token(sizes: ModelSizes, training: TrainingConfig, layer: int) -> int:
    """Return the bytes that decoder layer ``layer`` keeps for each token of this rank's part.

    Under sequence parallelism a rank has 1/tp of the tokens between layers, and all tokens of 1/tp
    of the columns within: as many numbers.

    Args:
        sizes: of the whole model.
    """
    element = 2 if training.dtype == "bfloat16" else _FLOAT32
    if training.recompute == "full":
        return -(-element * sizes.hidden // training.recompute_layers)
    multiplied = 1 if training.fp8 != "none" else element
    numbers = _Numbers(element, multiplied, frozenset(training.recomputed))
    inputs = 2 * element * sizes.hidden  # of both norms
    return inputs + _attention(sizes, numbers) + _feed_forward(sizes, layer, numbers)


def _norm(sizes: ModelSizes, numbers: _Numbers, *, alone: bool) -> int:
    """Return the bytes of a norm's output; recomputed only where it stands ``alone``.

    Otherwise it is part of a linear.
    """
    again = alone and "layernorm" in numbers.dropped
    return 0 if again else numbers.multiplied * sizes.hidden


def _attention(sizes: ModelSizes, numbers: _Numbers) -> int:
    """Return the bytes from the norm before the attention to the sum with the residual."""
    query, value = sizes.query_columns, sizes.value_columns
    statistics = 0 if "core_attn" in numbers.dropped else _FLOAT32 * sizes.heads
    if sizes.latent:
        ranks = sizes.query_rank + sizes.key_value_rank
        compressed = (numbers.element + numbers.multiplied) * ranks  # before and after their norms
        again = "mla_up_proj" in numbers.dropped
        upwards = 0 if again else numbers.element * (2 * query + sizes.key_value_columns)
        norm = _norm(sizes, numbers, alone=True)
        return norm + compressed + upwards + numbers.element * value + statistics
    rotated = query + sizes.groups * sizes.key_channels
    norm = _norm(sizes, numbers, alone=False)
    # The values are a view of the joint projection's output.
    return norm + numbers.element * (sizes.qkv_columns + rotated + value) + statistics


def _feed_forward(sizes: ModelSizes, layer: int, numbers: _Numbers) -> int:
    """Return the bytes from the norm before the feed-forward to the sum with the residual."""
    sparse = sizes.is_sparse(layer)
    norm = _norm(sizes, numbers, alone=sparse)
    if not sparse:
        return norm + (0 if "mlp" in numbers.dropped else _glu(sizes.columns, numbers))
    if "moe" in numbers.dropped:
        return norm
    columns = sizes.expert_columns
    activation = 0 if "moe_act" in numbers.dropped else numbers.multiplied * columns
    each = numbers.multiplied * sizes.hidden + numbers.element * 2 * columns + activation
    router = _ROUTER_COPIES * _FLOAT32 * sizes.experts + numbers.element * sizes.hidden
    again = "shared_experts" in numbers.dropped
    experts = router + sizes.chosen_experts * each
    return norm + experts + (0 if again else _glu(sizes.shared_columns, numbers))


def _glu(columns: int, numbers: _Numbers) -> int:
    """Return the bytes of gate and up, and of their product."""
    return numbers.element * 2 * columns + numbers.multiplied * columns
