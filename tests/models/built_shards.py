"""The tensor pieces that megatron built on a rank, for ``test_sharding``."""

from __future__ import annotations

from typing import Any

from engine.config.layout import LayoutConfig
from engine.config.training import TrainingConfig


def built_shards(layout: LayoutConfig, config: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return key, expert, whole shape, bounds, element size and main rank or not, of each piece."""
    from engine.models.build import build
    from engine.weights.shards import shards

    training = TrainingConfig(dtype="bfloat16", tokens_per_microbatch=64)
    return [
        (s.key, s.expert, s.shape, bounds(s.place), s.data.element_size(), s.main)
        for s in shards(build(config, layout, training))
    ]


def bounds(place: tuple[slice, ...]) -> tuple[tuple[int, int], ...]:
    """Return slices as (start, stop), which can be compared and sorted."""
    return tuple((part.start, part.stop) for part in place)
