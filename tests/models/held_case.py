"""What a rank of a pool runs for ``test_holdings``: the pieces that megatron built."""

from __future__ import annotations

from typing import Any

from engine.config.layout import LayoutConfig
from engine.config.training import TrainingConfig


def built_shards(layout: LayoutConfig, config: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Key, expert, shape of the whole, place, dtype and whether it speaks, of each piece."""
    from engine.models.build import build
    from engine.weights.shards import shards

    training = TrainingConfig(dtype="bfloat16", tokens_per_microbatch=64)
    return [
        (s.key, s.expert, s.shape, bounds(s.place), s.data.element_size(), s.main)
        for s in shards(build(config, layout, training))
    ]


def bounds(place: tuple[slice, ...]) -> tuple[tuple[int, int], ...]:
    """Slices as what can be compared and sorted."""
    return tuple((part.start, part.stop) for part in place)
