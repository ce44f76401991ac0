"""Express ranges of flattened tensors as slices of the tensors, which any layout can load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

ShardSlice = tuple[tuple[int, ...], tuple[int, ...]]
"""(offset, size) in a tensor, one number for each of its axes."""


def shard_slices(shape: Sequence[int], start: int, stop: int) -> Iterator[ShardSlice]:
    """Cut the elements ``start`` to ``stop`` of a row-major tensor of ``shape`` into slices.

    ZeRO-1 gives each data-parallel rank such a range: the end of a row, some whole rows, the begin
    of another. For matrices these are at most three slices. They come in the order of their
    elements, none is empty, and each is contiguous in memory.
    """
    if start >= stop:
        return
    if len(shape) <= 1:
        yield (start,) * len(shape), (stop - start,) * len(shape)
        return
    row = prod(shape[1:])
    first, last = -(-start // row), stop // row  # whole rows
    if first > last:  # begins and ends within one row
        yield from _in_row(shape, last, start - last * row, stop - last * row)
        return
    yield from _in_row(shape, first - 1, start - (first - 1) * row, row if start % row else 0)
    if first < last:
        yield (first, *(0 for _ in shape[1:])), (last - first, *shape[1:])
    yield from _in_row(shape, last, 0, stop - last * row)


def _in_row(shape: Sequence[int], row: int, start: int, stop: int) -> Iterator[ShardSlice]:
    for offset, size in shard_slices(shape[1:], start, stop):
        yield (row, *offset), (1, *size)
