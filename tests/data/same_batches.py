"""Whether two batches are identical: every tensor, its type, and every number beside them."""

from __future__ import annotations

from dataclasses import replace

import torch

from engine.data.batch_builder import WeightedRow
from engine.data.batches import Batch


def same(one: Batch, other: Batch) -> bool:
    numbers = [replace(batch, rows=[]) for batch in (one, other)]
    return (
        numbers[0] == numbers[1]
        and len(one.rows) == len(other.rows)
        and all(map(_same_row, one.rows, other.rows))
    )


def _same_row(one: WeightedRow, other: WeightedRow) -> bool:
    fields, others = ({**vars(row), **vars(row.packed), "packed": None} for row in (one, other))
    return all(
        value.dtype == others[name].dtype and value.equal(others[name])
        if isinstance(value, torch.Tensor)
        else value == others[name]
        for name, value in fields.items()
    )
