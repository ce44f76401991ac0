"""Read and write the keys of ``config.json`` that say one thing in several ways.

A key with null says as much as a missing one. The dtype of the weights stands under ``dtype``
(transformers 5), ``torch_dtype`` (4), or both. Rotary settings: ``engine.models.rope_settings``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from engine.errors import RunError

_NULL_SAYS_SOMETHING = "q_lora_rank"
"""Null: queries are not compressed. Missing, transformers would take 1536."""

_COUNTS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "moe_intermediate_size",
    "max_position_embeddings",
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "n_shared_experts",
    "num_experts_per_tok",
    "n_group",
    "topk_group",
    "first_k_dense_replace",
    "num_nextn_predict_layers",
    "q_lora_rank",
    "kv_lora_rank",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "v_head_dim",
)
_ZERO_TOO = {"first_k_dense_replace", "num_nextn_predict_layers", "n_shared_experts"}
_NUMBERS = (
    "rms_norm_eps",
    "initializer_range",
    "routed_scaling_factor",
    "router_aux_loss_coef",
    "aux_loss_alpha",
)
_SWITCHES = ("tie_word_embeddings", "norm_topk_prob", "attention_bias", "use_qk_norm")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
"""Names for one number: families publish one of them, and transformers takes another for it."""
_DTYPE_KEYS = ("dtype", "torch_dtype")
_LONGEST = 60  # characters of a value in a message


def without_nulls(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``config`` without the keys that say nothing, and with what Llama may leave out.

    Raises:
        RunError: a size is no whole number, another number none, a switch neither true nor false,
            or the number of experts stands there twice and differs.
    """
    said = {k: v for k, v in config.items() if v is not None or k == _NULL_SAYS_SOMETHING}
    for keys, kinds, expected in (
        (_COUNTS, (int,), "a whole number"),
        (_NUMBERS, (int, float), "a number"),
        (_SWITCHES, (bool,), "true or false"),
    ):
        for key in keys:
            value = said.get(key)
            if value is not None and not _is_one(value, kinds):
                raise RunError(f"model: config.json has {key} {quoted(value)}, expected {expected}")
            if keys is _COUNTS and value is not None and value < (key not in _ZERO_TOO):
                raise RunError(f"model: config.json has {key} {value}, expected at least 1")
    counts = {key: said[key] for key in _EXPERTS if key in said}
    if len(set(counts.values())) > 1:
        both = " and ".join(f"{key} {count}" for key, count in counts.items())
        raise RunError(f"model: config.json has {both}, expected one number of experts")
    if said.get("model_type") == "llama" and "num_attention_heads" in said:
        said.setdefault("num_key_value_heads", said["num_attention_heads"])  # Llama 1, and 2 at 7B
    return said


def _is_one(value: Any, kinds: tuple[type, ...]) -> bool:
    """Return whether ``value`` is of ``kinds``; to Python true and false are integers as well."""
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        return False
    return not isinstance(value, float) or math.isfinite(value)


def quoted(value: Any) -> str:
    """Return ``value`` as a message repeats it: no more than its beginning."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def dtype_name(config: Mapping[str, Any]) -> str | None:
    """Return the dtype that ``config`` names, or None; ``dtype`` where there are two, as in 5."""
    return next((str(config[key]) for key in _DTYPE_KEYS if config.get(key) is not None), None)


def with_dtype_name(
    config: Mapping[str, Any], name: str, *, always: bool = False
) -> dict[str, Any]:
    """Return ``config`` with the dtype ``name`` under every key that names one.

    Args:
        always: whether a config that names none is to name this one.
    """
    found = {key: name if key in _DTYPE_KEYS else value for key, value in config.items()}
    if always and not found.keys() & set(_DTYPE_KEYS):
        found["dtype"] = name
    return found
