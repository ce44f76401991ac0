"""Plan buckets: which tensors travel together, and to which rank."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from engine.weights.tensor_maps import MapKey

T = TypeVar("T")


@dataclass(frozen=True)
class Bucket:
    """Whole tensors that one rank receives together.

    Attributes:
        number: its place in the plan, from 0.
        rank: that receives it.
        keys: of its tensors, in their order.
        bytes: their size.
    """

    number: int
    rank: int
    keys: tuple[MapKey, ...]
    bytes: int


def plan_buckets(sizes: Mapping[MapKey, int], limit_bytes: int, ranks: int) -> list[Bucket]:
    """Return the buckets of a model: each tensor is in exactly one, and they keep their order.

    Each run of ``ranks`` consecutive buckets goes to different ranks. Where there are fewer buckets
    than ranks the receiving ranks lie as far apart as they can: on different machines, if possible.

    Args:
        sizes: bytes of each tensor.
        limit_bytes: most bytes of a bucket; a tensor that is larger has a bucket of its own.
        ranks: how many there are to receive buckets.
    """
    grouped = groups(sizes.items(), limit_bytes)
    apart = max(1, ranks // max(1, len(grouped)))
    return [
        Bucket(number, number * apart % ranks, keys, size)
        for number, (keys, size) in enumerate(grouped)
    ]


def groups(sized: Iterable[tuple[T, int]], limit: int) -> list[tuple[tuple[T, ...], int]]:
    """Return consecutive things that fit into ``limit`` bytes together, with their size.

    One that is larger by itself is alone.
    """
    found: list[tuple[tuple[T, ...], int]] = []
    current: list[T] = []
    total = 0
    for thing, size in sized:
        if current and total + size > limit:
            found.append((tuple(current), total))
            current, total = [], 0
        current.append(thing)
        total += size
    return [*found, (tuple(current), total)] if current else found
