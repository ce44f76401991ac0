"""Flatten a batch into a few arrays, and undo it: each can be handed over in one piece.

The number of rows differs from step to step, and so do their lengths. End to end they are seven
arrays, which are one copy each, and an outline of integers that says where a row begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

import numpy as np
import numpy.typing as npt
from torch import Tensor

from engine.data.batch_builder import WeightedRow
from engine.data.batches import Batch
from engine.data.packing import PackedRow

PER_TOKEN = ("tokens", "labels", "position_ids", "padding_mask", "response_mask")
FIELDS = {
    **dict.fromkeys(PER_TOKEN[:3], np.int64),
    **dict.fromkeys(PER_TOKEN[3:], np.bool_),
    "cu_seqlens": np.int32,
    "weights": np.float32,
}
"""The tensors of a weighted row and their types."""


def flatten(batch: Batch) -> tuple[dict[str, npt.NDArray], npt.NDArray[np.int64]]:
    """Return the rows' tensors end to end, by :data:`FIELDS`, and the outline."""
    outline = [batch.samples, batch.tokens, batch.response_tokens, batch.next_position]
    outline.append(len(batch.rows))
    for row in batch.rows:
        packed = row.packed
        outline += [len(packed.tokens), len(packed.cu_seqlens), packed.longest]
        outline += [len(row.members), *packed.response_lengths, *row.members]
    tensors = [{**vars(row.packed), "weights": row.weights} for row in batch.rows]
    arrays = {name: np.concatenate([row[name].numpy() for row in tensors]) for name in FIELDS}
    return arrays, np.array(outline, np.int64)


def unflatten(flat: Mapping[str, Tensor], outline: Iterable[int]) -> Batch:
    """Undo :func:`flatten`: rows whose tensors are views of the flat ones, wherever these are."""
    numbers = iter(outline)
    samples, tokens, response_tokens, next_position, count = islice(numbers, 5)
    rows = []
    token, bound = 0, 0
    for _ in range(count):
        length, bounds, longest, held = islice(numbers, 4)
        responses, members = tuple(islice(numbers, held)), tuple(islice(numbers, held))
        views = {name: flat[name][token : token + length] for name in PER_TOKEN}
        views["cu_seqlens"] = flat["cu_seqlens"][bound : bound + bounds]
        packed = PackedRow(**views, response_lengths=responses, longest=longest)
        rows.append(WeightedRow(packed, flat["weights"][token : token + length], members))
        token, bound = token + length, bound + bounds
    return Batch(rows, samples, tokens, response_tokens, next_position)
