"""A batch as a few flat arrays and back: what can be handed over in one piece each.

The number of rows differs from step to step, and so do their lengths. End to end they are six
arrays, which are one copy each, and an outline of integers that says where a row begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

import numpy as np
import numpy.typing as npt
from torch import Tensor

from engine.data.batches import Batch
from engine.data.packing import PackedRow

PER_TOKEN = ("tokens", "labels", "position_ids", "padding_mask", "response_mask")
FIELDS = {
    **dict.fromkeys(PER_TOKEN[:3], np.int64),
    **dict.fromkeys(PER_TOKEN[3:], np.bool_),
    "cu_seqlens": np.int32,
}
"""The tensors of a row and their types."""


def flatten(batch: Batch) -> tuple[dict[str, npt.NDArray], npt.NDArray[np.int64]]:
    """Return the rows' tensors end to end, by :data:`FIELDS`, and the outline."""
    outline = [batch.samples, batch.tokens, batch.response_tokens, batch.next_position]
    outline.append(len(batch.rows))
    for row in batch.rows:
        outline += [len(row.tokens), len(row.cu_seqlens), row.longest]
        outline += [len(row.response_lengths), *row.response_lengths]
    arrays = {
        name: np.concatenate([getattr(row, name).numpy() for row in batch.rows]) for name in FIELDS
    }
    return arrays, np.array(outline, np.int64)


def unflatten(flat: Mapping[str, Tensor], outline: Iterable[int]) -> Batch:
    """Undo :func:`flatten`: rows whose tensors are views of the flat ones, wherever these are."""
    numbers = iter(outline)
    samples, tokens, response_tokens, next_position, count = islice(numbers, 5)
    rows = []
    token, bound = 0, 0
    for _ in range(count):
        length, bounds, longest, responses = islice(numbers, 4)
        views = {name: flat[name][token : token + length] for name in PER_TOKEN}
        views["cu_seqlens"] = flat["cu_seqlens"][bound : bound + bounds]
        row = PackedRow(
            **views, response_lengths=tuple(islice(numbers, responses)), longest=longest
        )
        rows.append(row)
        token, bound = token + length, bound + bounds
    return Batch(rows, samples, tokens, response_tokens, next_position)
