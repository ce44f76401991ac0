"""Find what servers cannot read in ``config.json``, although it says all that the trainer needs.

SGLang chooses the model's class by ``architectures``, and reads the file with transformers 5, whose
configs refuse null for most keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from engine.models.config_json import dtype_name, quoted
from engine.models.sequence_classifier import is_sequence_classifier, language_model_class

_DEEPSEEK = ("deepseek_v2", "deepseek_v3")
_QWEN3 = ("qwen3", "qwen3_moe")
_SHARED_EXPERTS = (*_DEEPSEEK, "glm4_moe")
_ONLY_SERVERS = {"dual_chunk_attention_config": None, "rope_is_neox_style": True}
"""Keys that SGLang follows, transformers and the trainer not -> what changes nothing."""
_HEADS_SHARE_HIDDEN = ("mixtral", "qwen2")
"""Families of which servers do not read head_dim everywhere."""
_NEVER_NULL: dict[str, tuple[str, ...] | None] = {
    "attention_bias": (*_SHARED_EXPERTS, "llama", *_QWEN3),
    "attention_dropout": ("glm4_moe", "mixtral", "qwen2", *_QWEN3),
    "chunk_size_feed_forward": None,
    "decoder_sparse_step": ("qwen3_moe",),
    "head_dim": ("glm4_moe", *_QWEN3),
    "hidden_act": None,
    "initializer_range": None,
    "is_encoder_decoder": None,
    "max_window_layers": ("qwen2", "qwen3"),
    "mlp_bias": ("deepseek_v2", "llama"),
    "n_shared_experts": _SHARED_EXPERTS,
    "output_router_logits": ("mixtral", "qwen3_moe"),
    "router_aux_loss_coef": ("mixtral", "qwen3_moe"),
    "router_jitter_noise": ("mixtral",),
    "tie_word_embeddings": None,
    "use_cache": None,
    "use_qk_norm": ("glm4_moe",),
    "use_sliding_window": ("qwen2", *_QWEN3),
}
"""Keys for which transformers refuses null -> the families that have them; None: all.

Those that the trainer needs are left out: there null is refused as a missing key.
"""


_NEVER_WHOLE: dict[str, tuple[str, ...] | None] = {
    "attention_dropout": ("deepseek_v2",),
    "initializer_range": None,
    "rms_norm_eps": None,
    "routed_scaling_factor": _SHARED_EXPERTS,
    "router_aux_loss_coef": ("mixtral", "qwen3_moe"),
    "router_jitter_noise": ("mixtral",),
}
"""Keys for which transformers refuses 1 in place of 1.0 -> the families that have them."""
_DTYPES = ("float32", "bfloat16", "float16", "float64", "float", "half", "double", "float8_e4m3fn")
_WHOLE_HEADS = ("deepseek_v2", "llama")
"""Families whose hidden_size transformers wants to be a multiple of num_attention_heads."""


def problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what would stop servers from reading the ``config`` of a known family."""
    if is_sequence_classifier(config):  # told by itself
        return
    expected, found = language_model_class(config), config.get("architectures")
    if not isinstance(found, list) or found[:1] != [expected]:
        said = "no architectures" if found is None else f"architectures {quoted(found)}"
        yield (
            f"config.json has {said}, by which servers choose the model's class: expected "
            f'"architectures": ["{expected}"]'
        )
    yield from _two_head_sizes(config)
    for key, value in _ONLY_SERVERS.items():
        if config.get(key, value) not in (value, None):
            yield f"servers would follow {key} of config.json, and nobody else: delete it"
    yield from _values_of_another_kind(config)


def _values_of_another_kind(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what transformers' config classes refuse."""
    nulls = [key for key in _of_family(config, _NEVER_NULL) if config.get(key, 0) is None]
    if nulls:
        yield (
            f"servers take no null for {', '.join(nulls)} in config.json: delete "
            f"the key{'s' * (len(nulls) > 1)}, which says the same to the trainer"
        )
    for key in _of_family(config, _NEVER_WHOLE):
        if isinstance(value := config.get(key), int):
            yield f"servers want {key} {float(value)} for {value} in config.json"
    if (dtype := dtype_name(config)) not in (None, *_DTYPES):
        yield (
            f"servers know no dtype {quoted(dtype)} (dtype or torch_dtype in config.json): "
            "expected bfloat16, float16 or float32"
        )
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    if config["model_type"] in _WHOLE_HEADS and hidden % heads:
        yield (
            f"servers want hidden_size to be a multiple of num_attention_heads, found {hidden} "
            f"and {heads}"
        )


def _two_head_sizes(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield a head_dim that SGLang's class of the model does not read."""
    if config["model_type"] not in _HEADS_SHARE_HIDDEN:
        return
    derived = config["hidden_size"] // config["num_attention_heads"]
    if (own := config.get("head_dim")) not in (derived, None):
        yield (
            f"servers take heads of {config['model_type']} to have hidden_size / "
            f"num_attention_heads = {derived} channels, and head_dim in config.json is {own}"
        )


def _of_family(
    config: Mapping[str, Any], keys: Mapping[str, tuple[str, ...] | None]
) -> Iterator[str]:
    for key, families in keys.items():
        if families is None or config["model_type"] in families:
            yield key
