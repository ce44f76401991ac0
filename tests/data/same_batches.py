"""Whether two batches are identical: every tensor, its type, and every number beside them."""

from __future__ import annotations

from dataclasses import replace

import torch

from engine.data.batches import Batch
from engine.data.packing import PackedRow


def same(one: Batch, other: Batch) -> bool:
    numbers = [replace(batch, rows=[]) for batch in (one, other)]
    return (
        numbers[0] == numbers[1]
        and len(one.rows) == len(other.rows)
        and all(map(_same_row, one.rows, other.rows))
    )


def _same_row(one: PackedRow, other: PackedRow) -> bool:
    return all(
        value.dtype == vars(other)[name].dtype and value.equal(vars(other)[name])
        if isinstance(value, torch.Tensor)
        else value == vars(other)[name]
        for name, value in vars(one).items()
    )
