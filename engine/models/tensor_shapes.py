"""Every tensor of megatron's models: its shape, and the axis along which ranks share it.

Plain arithmetic on the sizes that a family's ``architecture`` names; a test compares it with what
megatron builds. Keys are those of checkpoints, as in ``engine.models.weight_rules``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

_PREFIX = re.compile(r"^(decoder\.(layers\.\d+\.)?|mtp\.layers\.\d+\.(transformer_layer\.)?)")


@dataclass(frozen=True)
class Kind:
    """What tensors of one name have in common.

    Attributes:
        sizes: of its axes, by name.
        cut: the axis that tensor parallelism shares; experts' tensors, expert tensor parallelism.
            None where every rank has the whole.
        parts: equal parts along that axis of which each rank has its share: 2 for gate and up.
        float32: whether it stays in float32 whatever the model's dtype.
    """

    sizes: tuple[str, ...]
    cut: int | None = None
    parts: int = 1
    float32: bool = False


_HIDDEN = Kind(("hidden",))
_ATTENTION = {
    "linear_qkv.weight": Kind(("qkv", "hidden"), cut=0),
    "linear_qkv.bias": Kind(("qkv",), cut=0),
    "linear_qkv.layer_norm_weight": _HIDDEN,
    "q_layernorm.weight": Kind(("head",)),
    "k_layernorm.weight": Kind(("head",)),
    "linear_q_proj.weight": Kind(("queries", "hidden"), cut=0),
    "linear_q_down_proj.weight": Kind(("query rank", "hidden")),
    "linear_q_up_proj.layer_norm_weight": Kind(("query rank",)),
    "linear_q_up_proj.weight": Kind(("queries", "query rank"), cut=0),
    "linear_kv_down_proj.weight": Kind(("compressed", "hidden")),
    "linear_kv_up_proj.layer_norm_weight": Kind(("rank",)),
    "linear_kv_up_proj.weight": Kind(("keys and values", "rank"), cut=0),
    "linear_proj.weight": Kind(("hidden", "values"), cut=1),
}
_KINDS = {
    "embedding.word_embeddings.weight": Kind(("vocabulary", "hidden"), cut=0),
    "output_layer.weight": Kind(("vocabulary", "hidden"), cut=0),
    "final_layernorm.weight": _HIDDEN,
    "input_layernorm.weight": _HIDDEN,
    "pre_mlp_layernorm.weight": _HIDDEN,
    "enorm.weight": _HIDDEN,
    "hnorm.weight": _HIDDEN,
    "eh_proj.weight": Kind(("hidden", "two hidden"), cut=0),
    **{f"self_attention.{name}": kind for name, kind in _ATTENTION.items()},
    "mlp.linear_fc1.layer_norm_weight": _HIDDEN,
    "mlp.linear_fc1.weight": Kind(("two dense", "hidden"), cut=0, parts=2),
    "mlp.linear_fc2.weight": Kind(("hidden", "dense"), cut=1),
    "mlp.router.weight": Kind(("experts", "hidden")),
    "mlp.router.expert_bias": Kind(("experts",), float32=True),
    "mlp.experts.experts.linear_fc1.weight": Kind(("two expert", "hidden"), cut=0, parts=2),
    "mlp.experts.experts.linear_fc2.weight": Kind(("hidden", "expert"), cut=1),
    "mlp.shared_experts.linear_fc1.weight": Kind(("two shared", "hidden"), cut=0, parts=2),
    "mlp.shared_experts.linear_fc2.weight": Kind(("hidden", "shared"), cut=1),
}
"""By what remains of a key without the prefix that says which layer it is in."""


def kind_of(key: str) -> Kind:
    """What kind of tensor ``key`` is.

    Raises:
        KeyError: megatron's models have no such tensor.
    """
    return _KINDS[_PREFIX.sub("", key)]


def layer_of(key: str) -> int | None:
    """The decoder layer that ``key`` is in, from 0; None outside."""
    found = re.match(r"decoder\.layers\.(\d+)\.", key)
    return int(found[1]) if found else None


def shape_of(kind: Kind, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The whole tensor's shape (of one expert), from :func:`named_sizes`."""
    return tuple(sizes[size] for size in kind.sizes)


def places_of(kind: Kind, shape: tuple[int, ...], rank: int, ranks: int) -> list[tuple[slice, ...]]:
    """The slices of the whole tensor that one of the ``ranks`` that share it holds.

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
    """How many elements ``place`` has."""
    return prod(part.stop - part.start for part in place)


def named_sizes(architecture: Mapping[str, Any], vocabulary: int) -> dict[str, int]:
    """Sizes of axes by the names that :class:`Kind` uses; 0 where the model has no such axis.

    Args:
        architecture: of a family.
        vocabulary: words.
    """

    def size(key: str) -> int:
        return int(architecture.get(key) or 0)

    hidden, dense = size("hidden_size"), size("ffn_hidden_size")
    expert, shared = size("moe_ffn_hidden_size"), size("moe_shared_expert_intermediate_size")
    return {
        "vocabulary": vocabulary,
        "hidden": hidden,
        "two hidden": 2 * hidden,
        "dense": dense,
        "two dense": 2 * dense,
        "experts": size("num_moe_experts"),
        "expert": expert,
        "two expert": 2 * expert,
        "shared": shared,
        "two shared": 2 * shared,
        **_attention_sizes(architecture, size("num_attention_heads")),
    }


def _attention_sizes(architecture: Mapping[str, Any], heads: int) -> dict[str, int]:
    if not architecture.get("multi_latent_attention"):
        head, groups = architecture["kv_channels"], architecture["num_query_groups"]
        return {"head": head, "qkv": (heads + 2 * groups) * head, "values": heads * head}
    key, value = architecture["qk_head_dim"], architecture["v_head_dim"]
    rotated, rank = architecture["qk_pos_emb_head_dim"], architecture["kv_lora_rank"]
    return {
        "query rank": architecture["q_lora_rank"] or 0,
        "queries": heads * (key + rotated),
        "rank": rank,
        "compressed": rank + rotated,
        "keys and values": heads * (key + value),
        "values": heads * value,
    }
