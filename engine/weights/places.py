"""Check that pieces of a tensor, by the places where they lie in it, make up the whole."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

Place = tuple[slice, ...]
"""Where a piece lies in its tensor: for each axis start and stop."""


def make_up(shape: tuple[int, ...], places: Sequence[Place]) -> bool:
    """Say whether every element of a tensor of ``shape`` is in exactly one of ``places``."""
    elements = sum(_size(place) for place in places)
    return (
        elements == _size(tuple(slice(0, length) for length in shape))
        and all(_is_inside(place, shape) for place in places)
        and not any(_overlap(one, other) for one, other in combinations(places, 2))
    )


def _size(place: Place) -> int:
    size = 1
    for part in place:
        size *= part.stop - part.start
    return size


def _is_inside(place: Place, shape: tuple[int, ...]) -> bool:
    return len(place) == len(shape) and all(
        0 <= part.start <= part.stop <= length for part, length in zip(place, shape, strict=True)
    )


def _overlap(one: Place, other: Place) -> bool:
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))
