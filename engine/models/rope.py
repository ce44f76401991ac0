"""Frequencies of rotary position embedding, as transformers computes them.

Settings come from ``engine.models.rope_settings``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def inverse_frequencies(settings: Mapping[str, Any], channels: int) -> Tensor:
    """Return the radians by which each pair of a head's channels turns from position to position.

    ``linear`` stretches all wavelengths by ``factor``. ``llama3`` (Llama 3.1's code) leaves short
    ones as they are, stretches long ones, and blends in between; so does ``yarn``
    (arXiv 2309.00071, section 3.2), along channels instead of wavelengths.

    Args:
        settings: of ``rope_settings``, their ``rope_type`` one of ``GROUPED``.
        channels: those of a head that turn; all of them, or their ``rotated_part``.

    Returns:
        [channels / 2] float32, on the CPU.
    """
    exponents = torch.arange(0, channels, 2, dtype=torch.float32, device="cpu") / channels
    plain = 1.0 / settings["rope_theta"] ** exponents
    if settings["rope_type"] == "default":
        return plain
    stretched = plain / settings["factor"]
    if settings["rope_type"] == "linear":
        return stretched
    kept = _kept_by_yarn if settings["rope_type"] == "yarn" else _kept_by_llama3
    share = kept(settings, plain)
    return share * plain + (1 - share) * stretched


def _kept_by_llama3(settings: Mapping[str, Any], plain: Tensor) -> Tensor:
    """Return the share of each frequency that stays: by its turns in the length of training."""
    low, high = settings["low_freq_factor"], settings["high_freq_factor"]
    turns = settings["original_max_position_embeddings"] * plain / (2 * math.pi)
    return ((turns - low) / (high - low)).clamp(0, 1)


def _kept_by_yarn(settings: Mapping[str, Any], plain: Tensor) -> Tensor:
    """Return the share of each frequency that stays: by its place among the channels."""
    channels = 2 * len(plain)
    theta, trained = settings["rope_theta"], settings["original_max_position_embeddings"]

    def place(turns: float) -> float:
        """The pair of channels, not a whole number, that turns so often in ``trained``."""
        return channels * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first, last = place(settings.get("beta_fast") or 32), place(settings.get("beta_slow") or 1)
    if settings.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, channels - 1)
    steps = torch.arange(len(plain), dtype=torch.float32, device="cpu") - first
    return 1 - (steps / ((last - first) or 0.001)).clamp(0, 1)
