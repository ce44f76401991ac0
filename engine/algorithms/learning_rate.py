"""Learning rate as a pure function of the update number, so that a resumed run needs no state.

Cosine decay as in the SFT of DeepSeek-R1 (arXiv 2501.12948 v2: from 5e-5 to 5e-6), linear warm-up
as in DeepSeek-V3 (arXiv 2412.19437).
"""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["constant", "linear", "cosine"]


def learning_rate(
    update: int,
    *,
    peak: float,
    schedule: Schedule = "constant",
    warmup: int = 0,
    total: int = 0,
    minimum: float = 0.0,
) -> float:
    """Return the learning rate of update number ``update`` (the first is 0).

    The warm-up climbs in equal steps to ``peak``, which update ``warmup - 1`` is the first to get.
    From update ``warmup`` on, "linear" and "cosine" fall from ``peak`` towards ``minimum``, which
    update ``total`` would be the first to get: the last update of a run, ``total - 1``, never
    has a rate of 0.

    Args:
        peak: the rate after warm-up.
        warmup: number of warm-up updates.
        total: number of updates of the run; "constant" does not look at it.
        minimum: where the decay ends.
    """
    if update < warmup:
        return peak * (update + 1) / warmup
    if schedule == "constant":
        return peak
    progress = min(1.0, (update - warmup) / max(1, total - warmup))
    if schedule == "linear":
        remaining = 1.0 - progress
    elif schedule == "cosine":
        remaining = 0.5 * (1.0 + math.cos(math.pi * progress))
    else:
        raise ValueError(f"schedule must be constant, linear or cosine, not {schedule!r}")
    return minimum + (peak - minimum) * remaining
