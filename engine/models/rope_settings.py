"""Rotary settings of ``config.json``, in whichever of its forms they stand.

transformers 4 wrote ``rope_theta`` and ``rope_scaling``, 5 writes one key ``rope_parameters``.
Where a config has both, what 5 does holds: ``rope_scaling`` takes the place of ``rope_parameters``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from engine.errors import RunError
from engine.models.config_json import quoted

GROUPED = ("default", "linear", "llama3", "yarn")
"""Values of ``rope_type`` for which there are frequencies: ``engine.models.rope``."""
LATENT = ("default", "yarn")
"""Those that megatron knows for latent attention."""

_NEEDED = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor",),
}
_TRAINED_LENGTH = "original_max_position_embeddings"
_PART = "partial_rotary_factor"
_NUMBERS = (
    "rope_theta",
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    _TRAINED_LENGTH,
    _PART,
    "attention_factor",
    "attn_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
)

_TINY = 1e-9
_LEAST = {"rope_theta": 1 + _TINY, "mscale": 0.0, "mscale_all_dim": 0.0, "attention_factor": 0.0}


def rope_settings(
    config: Mapping[str, Any], known: tuple[str, ...], *, partial_rotation: bool = False
) -> dict[str, Any]:
    """Return the settings under transformers 5's names, ``rope_theta`` and ``rope_type`` too.

    Args:
        config: contents of ``config.json``.
        known: the values of ``rope_type`` that the family can express.
        partial_rotation: whether it can rotate only a part of each head.

    Raises:
        RunError: another ``rope_type``, a value that is no number, only a part of each head is
            rotated, or ``rope_scaling`` drops what ``rope_parameters`` says.
        KeyError: ``config.json`` lacks a setting that its ``rope_type`` needs.
    """
    settings = _stated(config)
    kind = settings["rope_type"]
    if kind not in known:
        raise RunError(
            f"model: config.json has rope_type {quoted(kind)}, its family knows {', '.join(known)}"
        )
    for key in ("rope_theta", *_NEEDED.get(kind, ())):
        if key not in settings:
            raise KeyError(key)
    if not partial_rotation and settings.get(_PART, 1.0) != 1.0:
        raise RunError(f"model: config.json has a {_PART}, only 1.0 is known")
    return settings


def rotated_part(config: Mapping[str, Any]) -> float | None:
    """Return ``partial_rotary_factor``: the share of a head's channels, the first, that turn."""
    part = _stated(config).get(_PART)
    return None if part is None else float(part)


def null_settings(config: Mapping[str, Any]) -> list[str]:
    """Return the keys with null among the rotary settings that count."""
    found = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if "rope_theta" in config:
        found = {"rope_theta": config["rope_theta"], **found}
    return [key for key, value in found.items() if value is None]


def _stated(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return every setting that there is, moved into one place, without nulls."""
    new, old = _settings_of(config, "rope_parameters"), _settings_of(config, "rope_scaling")
    settings = old or new
    kind = settings.pop("type", "default")
    settings.setdefault("rope_type", kind)
    theta, part = config.get("rope_theta"), config.get(_PART)
    if theta is None and old and "rope_theta" not in old and "rope_theta" in new:
        raise RunError(
            "model: config.json has rope_parameters and rope_scaling, and transformers 5 would "
            f"drop the former with its rope_theta {new['rope_theta']}: write what rope_scaling "
            "says into rope_parameters, and delete it"
        )
    if theta is not None:
        settings.setdefault("rope_theta", theta)
    elif config.get("model_type") == "llama":
        settings.setdefault("rope_theta", 10_000.0)  # Llama 1 and 2 leave it out
    inside = part if part is None else settings.setdefault(_PART, part)
    if inside != part and settings["rope_type"] != "default":
        # For plain rotation transformers follows the one inside, for all others the other.
        raise _two_values(_PART, part, inside)
    if settings["rope_type"] in ("llama3", "yarn"):
        if _TRAINED_LENGTH not in settings:
            settings[_TRAINED_LENGTH] = config["max_position_embeddings"]
        outside = config.get(_TRAINED_LENGTH)
        if outside not in (None, settings[_TRAINED_LENGTH]):
            # transformers follows this one, SGLang the one inside.
            raise _two_values(_TRAINED_LENGTH, outside, settings[_TRAINED_LENGTH])
    _check_numbers(settings)
    return settings


def _settings_of(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = config.get(key) or {}
    if not isinstance(found, Mapping) or any(isinstance(v, Mapping) for v in found.values()):
        raise RunError(
            f"model: config.json has {key} {quoted(found)}, expected one set of settings, "
            "the same for all layers"
        )
    # transformers takes truncate to be false where it is null, true where it is missing.
    return {k: value for k, value in found.items() if value is not None or k == "truncate"}


def _two_values(key: str, outside: Any, inside: Any) -> RunError:
    return RunError(
        f"model: config.json has {key} {quoted(outside)} and, inside its rotary settings, "
        f"{quoted(inside)}: expected one of the two"
    )


def _check_numbers(settings: Mapping[str, Any]) -> None:
    for key in _NUMBERS:
        if key not in settings:
            continue
        value = settings[key]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        least = _LEAST.get(key, _TINY)
        if not is_number or not least <= value < math.inf:
            raise RunError(
                f"model: config.json has {key} {quoted(value)} in its rotary settings, expected "
                f"{'a positive number' if least == _TINY else f'at least {least:g}'}"
            )
    if not isinstance(settings.get("truncate", True), bool):
        raise RunError(
            f"model: config.json has truncate {quoted(settings['truncate'])} in its rotary "
            "settings, expected true or false"
        )


def attention_factor(settings: Mapping[str, Any]) -> float:
    """Return what cosine and sine are multiplied by; 1 but for YaRN (arXiv 2309.00071, 3.4).

    It is ``attention_factor``, or follows from ``factor``, ``mscale`` and ``mscale_all_dim`` as in
    transformers. ``attn_factor`` multiplies it, as in YaRN's published code and in SGLang;
    transformers 5.12 leaves that one out. DeepSeek-R1-0528-Qwen3-8B has it, such that the product
    is 1.

    Args:
        settings: of :func:`rope_settings`.
    """
    if settings["rope_type"] != "yarn":
        return 1.0
    own = settings.get("attention_factor")
    if own is None:
        own = _attention_factor(settings)
    return float(own) * float(settings.get("attn_factor", 1.0))


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
        raise RunError("model: of YaRN in latent attention only factor > 1 with truncate is known")
    over_all = settings.get("mscale_all_dim") or 0.0
    mscale = (attention_factor(settings) * _mscale(factor, over_all) - 1) / (0.1 * math.log(factor))
    return {
        "rope_type": "yarn",
        "rotary_scaling_factor": factor,
        _TRAINED_LENGTH: settings[_TRAINED_LENGTH],
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
    return 0.1 * float(mscale) * math.log(factor) + 1.0 if factor > 1 else 1.0
