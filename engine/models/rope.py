"""Rotary position embedding: settings from ``config.json``, frequencies, megatron's arguments.

transformers 5 writes one key ``rope_parameters``; 4 wrote ``rope_theta`` and ``rope_scaling``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from engine.errors import RunError

ROPE_TYPES = ("default", "llama3")
"""Values of ``rope_type`` that :func:`inverse_frequencies` expresses."""


def rope_settings(
    config: Mapping[str, Any], known: tuple[str, ...], *, partial_rotation: bool = False
) -> dict[str, Any]:
    """Return the settings under transformers 5's names, ``rope_theta`` and ``rope_type`` too.

    Args:
        config: contents of ``config.json``.
        known: the values of ``rope_type`` that the family can express.
        partial_rotation: whether it can rotate only a part of each head.

    Raises:
        RunError: another ``rope_type``, or only a part of each head is rotated.
        KeyError: ``config.json`` has no ``rope_theta``.
    """
    settings = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    kind = settings.setdefault("rope_type", settings.pop("type", "default"))
    if "rope_theta" not in settings:
        settings["rope_theta"] = config["rope_theta"]
    if kind not in known:
        raise RunError(
            f"model: config.json has rope_type {kind!r}, its family knows {', '.join(known)}"
        )
    if not partial_rotation and rotated_part(config) not in (None, 1.0):
        raise RunError("model: config.json has a partial_rotary_factor, only 1.0 is known")
    return settings


def rotated_part(config: Mapping[str, Any]) -> float | None:
    """Return ``partial_rotary_factor``: the share of a head's channels, the first, that turn."""
    settings = config.get("rope_parameters") or config.get("rope_scaling") or {}
    part = settings.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    return None if part is None else float(part)


def inverse_frequencies(settings: Mapping[str, Any], channels: int) -> Tensor:
    """Return the radians by which each pair of a head's channels turns from position to position.

    ``llama3`` (Llama 3.1's code, and transformers' ``_compute_llama3_parameters``) leaves short
    wavelengths as they are, stretches long ones by ``factor``, and blends in between.

    Args:
        settings: of :func:`rope_settings`, its ``rope_type`` one of :data:`ROPE_TYPES`.
        channels: those of a head that turn; all of them, or its :func:`rotated_part`.

    Returns:
        [channels / 2] float32, on the CPU.
    """
    exponents = torch.arange(0, channels, 2, dtype=torch.float32, device="cpu") / channels
    plain = 1.0 / settings["rope_theta"] ** exponents
    if settings["rope_type"] == "default":
        return plain
    low, high = settings["low_freq_factor"], settings["high_freq_factor"]
    turns = settings["original_max_position_embeddings"] * plain / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return kept * plain + (1 - kept) * plain / settings["factor"]


def yarn_arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of megatron's ``MLATransformerConfig`` for YaRN (arXiv 2309.00071).

    Cosine and sine are multiplied by the attention factor, attention scores besides by the square
    of mscale(factor, mscale_all_dim), where mscale(s, m) = 0.1 m ln s + 1. megatron takes the
    attention factor as mscale(factor, mscale) / mscale(factor, mscale_all_dim) always; transformers
    does so only if both keys are there and not 0, and else takes mscale(factor, 1), or what
    ``attention_factor`` says. So ``mscale`` is chosen here such that the quotient is theirs.

    Raises:
        RunError: a setting that megatron cannot express.
    """
    factor = float(settings["factor"])
    if factor <= 1 or not settings.get("truncate", True):
        raise RunError("model: of YaRN only factor > 1 with truncate is known")
    over_all = settings.get("mscale_all_dim") or 0.0
    attention_factor = settings.get("attention_factor") or _attention_factor(settings)
    mscale = (attention_factor * _mscale(factor, over_all) - 1) / (0.1 * math.log(factor))
    return {
        "rope_type": "yarn",
        "rotary_scaling_factor": factor,
        "original_max_position_embeddings": settings["original_max_position_embeddings"],
        "beta_fast": settings.get("beta_fast") or 32,
        "beta_slow": settings.get("beta_slow") or 1,
        "mscale": mscale,
        "mscale_all_dim": over_all,
    }


def _attention_factor(settings: Mapping[str, Any]) -> float:
    factor, own, over_all = (settings.get(k) for k in ("factor", "mscale", "mscale_all_dim"))
    if own and over_all:
        return _mscale(factor, own) / _mscale(factor, over_all)
    return _mscale(factor, 1.0)


def _mscale(factor: Any, mscale: Any) -> float:
    return 0.1 * float(mscale) * math.log(factor) + 1.0
