"""Find where servers would turn queries and keys otherwise than the trainer.

Sources: sglang/srt/layers/rotary_embedding, 0.5.20, and its model files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from engine.config.model_sizes import model_sizes
from engine.models.rope_settings import (
    GROUPED,
    LATENT,
    attention_factor,
    null_settings,
    rope_settings,
)
from engine.models.sequence_classifier import as_built

_MAY_BE_NULL = ("attention_factor", "mscale", "mscale_all_dim")
"""Keys whose null means to SGLang and to transformers what a missing one means."""


def problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield where servers would turn queries and keys otherwise than the trainer, or not start."""
    nulls = [key for key in null_settings(config) if key not in _MAY_BE_NULL]
    config, latent = as_built(config), model_sizes(config).latent
    known = LATENT if latent else GROUPED
    settings = rope_settings(config, known, partial_rotation=True)
    kind = settings["rope_type"]
    if config["model_type"] == "mixtral" and kind != "default":
        yield f"servers would leave out rope_type {kind!r}: SGLang's Mixtral knows default"
    elif config["model_type"] == "mixtral" and settings["rope_theta"] % 1:
        yield f"servers would cut rope_theta {settings['rope_theta']} to a whole number: Mixtral's"
    elif kind == "linear" and isinstance(settings["factor"], int):
        factor = settings["factor"]
        yield f"servers want factor {float(factor)} for {factor} in the rotary settings"
    elif kind == "yarn":
        yield from _other_factor(settings, latent)
    if nulls and (kind != "default" or {"rope_theta", "partial_rotary_factor"} & {*nulls}):
        yield f"servers take no null for {', '.join(nulls)} in the rotary settings: delete it there"
    part, head = settings.get("partial_rotary_factor", 1.0), model_sizes(config).query_channels
    if not latent and (turning := int(part * head)) % 2:
        yield (
            f"servers turn pairs of channels, and partial_rotary_factor {part} of {head} channels "
            f"is {turning}, an odd number"
        )
    if kind == "yarn":
        yield from _positions(config["max_position_embeddings"], settings)
        if settings.get("extrapolation_factor", 1) != 1:
            yield (
                "servers would follow extrapolation_factor of config.json, and nobody else: "
                "delete it"
            )


def _other_factor(settings: Mapping[str, Any], latent: bool) -> Iterator[str]:
    """Yield that SGLang multiplies YaRN's cosines and sines by another factor than the trainer."""
    ours, theirs = attention_factor(settings), _served_factor(settings, latent)
    if math.isclose(ours, theirs, rel_tol=1e-6):
        return
    way_out = ""
    if not latent:  # there mscale_all_dim changes more than this
        plain = _served_factor({"factor": settings["factor"]}, latent)
        way_out = (
            f": write attn_factor {ours / plain:.10g} in place of attention_factor, mscale and "
            "mscale_all_dim"
        )
    yield (
        f"servers would multiply the rotary embedding by {theirs:.6g}, the trainer, as config.json "
        f"says, by {ours:.6g}{way_out}"
    )


def _positions(context: int, settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield a context that is longer than SGLang's table of YaRN's cosines and sines."""
    trained, factor = settings["original_max_position_embeddings"], settings["factor"]
    known = math.ceil(trained * factor)
    if context > known:
        yield (
            f"servers know YaRN's rotation of {known} positions (original_max_position_embeddings "
            f"{trained} times factor {factor:g}) and would compute something else beyond, "
            f"max_position_embeddings is {context}: set it to {known}"
        )


def _served_factor(settings: Mapping[str, Any], latent: bool) -> float:
    """Return what SGLang multiplies cosine and sine by.

    Sources: ``YaRNScalingRotaryEmbedding`` and, for latent attention,
    ``DeepseekScalingRotaryEmbedding`` in sglang/srt/layers/rotary_embedding.
    """
    own, over_all = settings.get("mscale"), settings.get("mscale_all_dim")
    if latent:
        own, over_all = 1.0 if own is None else own, 0.0 if over_all is None else over_all
    elif own is None or over_all is None:
        own, over_all = 1.0, 0.0
    stretch = 0.1 * math.log(max(1.0, settings["factor"]))
    factor: float = (stretch * own + 1) / (stretch * over_all + 1)
    return factor * float(settings.get("attn_factor", 1.0))
