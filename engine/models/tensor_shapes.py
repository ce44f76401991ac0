"""Shapes of all tensors of megatron's models, and the axis along which ranks share each.

Plain arithmetic on :class:`engine.config.model_sizes.ModelSizes`; a test compares it with what
megatron builds. Keys are those of checkpoints, as in ``engine.models.weight_rules``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod

from engine.config.model_sizes import ModelSizes

_PREFIX = re.compile(r"^(decoder\.(layers\.\d+\.)?|mtp\.layers\.\d+\.(transformer_layer\.)?)")


@dataclass(frozen=True)
class Kind:
    """Axes of all tensors of one name.

    Attributes:
        axes: for each axis its size, or the attribute of :class:`ModelSizes` that is its size.
        cut: the axis that tensor parallelism shares; experts' tensors, expert tensor parallelism.
            None where every rank has the whole.
        parts: tensors of that size that are joined along ``cut``, of each of which each rank has
            its share: 2 for gate and up.
        float32: whether it stays in float32 whatever the model's dtype.
    """

    axes: tuple[str | int, ...]
    cut: int | None = None
    parts: int = 1
    float32: bool = False


_HIDDEN = Kind(("hidden",))
_ATTENTION = {
    "linear_qkv.weight": Kind(("qkv_columns", "hidden"), cut=0),
    "linear_qkv.bias": Kind(("qkv_columns",), cut=0),
    "linear_qkv.layer_norm_weight": _HIDDEN,
    "q_layernorm.weight": Kind(("query_channels",)),
    "k_layernorm.weight": Kind(("query_channels",)),
    "linear_q_proj.weight": Kind(("query_columns", "hidden"), cut=0),
    "linear_q_down_proj.weight": Kind(("query_rank", "hidden")),
    "linear_q_up_proj.layer_norm_weight": Kind(("query_rank",)),
    "linear_q_up_proj.weight": Kind(("query_columns", "query_rank"), cut=0),
    "linear_kv_down_proj.weight": Kind(("compressed_columns", "hidden")),
    "linear_kv_up_proj.layer_norm_weight": Kind(("key_value_rank",)),
    "linear_kv_up_proj.weight": Kind(("key_value_columns", "key_value_rank"), cut=0),
    "linear_proj.weight": Kind(("hidden", "value_columns"), cut=1),
}
KINDS = {
    "embedding.word_embeddings.weight": Kind(("vocabulary", "hidden"), cut=0),
    "output_layer.weight": Kind(("vocabulary", "hidden"), cut=0),
    "score.weight": Kind((1, "hidden")),
    "final_layernorm.weight": _HIDDEN,
    "input_layernorm.weight": _HIDDEN,
    "pre_mlp_layernorm.weight": _HIDDEN,
    "enorm.weight": _HIDDEN,
    "hnorm.weight": _HIDDEN,
    "eh_proj.weight": Kind(("hidden", "prediction_columns"), cut=0),
    **{f"self_attention.{name}": kind for name, kind in _ATTENTION.items()},
    "mlp.linear_fc1.layer_norm_weight": _HIDDEN,
    "mlp.linear_fc1.weight": Kind(("columns", "hidden"), cut=0, parts=2),
    "mlp.linear_fc2.weight": Kind(("hidden", "columns"), cut=1),
    "mlp.router.weight": Kind(("experts", "hidden")),
    "mlp.router.expert_bias": Kind(("experts",), float32=True),
    "mlp.experts.experts.linear_fc1.weight": Kind(("expert_columns", "hidden"), cut=0, parts=2),
    "mlp.experts.experts.linear_fc2.weight": Kind(("hidden", "expert_columns"), cut=1),
    "mlp.shared_experts.linear_fc1.weight": Kind(("shared_columns", "hidden"), cut=0, parts=2),
    "mlp.shared_experts.linear_fc2.weight": Kind(("hidden", "shared_columns"), cut=1),
}
"""By what remains of a key without the prefix that says which layer it is in."""


def kind_of(key: str) -> Kind:
    """Return the axes of the tensor ``key``.

    Raises:
        KeyError: megatron's models have no such tensor.
    """
    return KINDS[_PREFIX.sub("", key)]


def layer_of(key: str) -> int | None:
    """Return the decoder layer that ``key`` is in, from 0; None outside."""
    found = re.match(r"decoder\.layers\.(\d+)\.", key)
    return int(found[1]) if found else None


def shape_of(kind: Kind, sizes: ModelSizes) -> tuple[int, ...]:
    """Return the whole tensor's shape; of a tensor that experts have, one expert's."""
    return tuple(
        (size if isinstance(size, int) else getattr(sizes, size))
        * (kind.parts if axis == kind.cut else 1)
        for axis, size in enumerate(kind.axes)
    )


def places_of(kind: Kind, shape: tuple[int, ...], rank: int, ranks: int) -> list[tuple[slice, ...]]:
    """Return the slices of the whole tensor that ``rank`` of the ``ranks`` that share it holds.

    Raises:
        ValueError: the tensor cannot be shared so.
    """
    whole = tuple(slice(0, size) for size in shape)
    if kind.cut is None:
        return [whole]
    part, rest = divmod(shape[kind.cut], kind.parts)
    share, odd = divmod(part, ranks)
    if rest or odd:
        raise ValueError(f"{ranks} ranks cannot share a tensor of shape {shape} along {kind.cut}")
    begins = [number * part + rank * share for number in range(kind.parts)]
    return [
        (*whole[: kind.cut], slice(begin, begin + share), *whole[kind.cut + 1 :])
        for begin in begins
    ]


def elements(place: tuple[slice, ...]) -> int:
    """Return the number of elements in ``place``."""
    return prod(part.stop - part.start for part in place)
