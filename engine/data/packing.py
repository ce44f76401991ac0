"""Pack several samples into one row; pad only where a layout has to cut them equally.

A row is one microbatch of batch size 1: attention is kept inside each sample by ``cu_seqlens``
(the THD layout), so packing changes no number. Padding stands behind a sample's own positions,
where causal attention never looks at it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.parallel.context_slices import ahead

TokenIds = Sequence[int] | npt.NDArray[np.integer[Any]]
"""Token ids [tokens] as a list, or as a NumPy array of any integer type."""


@dataclass(frozen=True)
class PackedRow:
    """S samples label-aligned one after another, and perhaps a dummy sample; T tokens in all.

    A sample of P prompt and R response tokens has P + R - 1 positions: its input is
    (prompt + response)[:-1], its labels are (prompt + response)[1:], and position t is about the
    prediction of labels[t]. Its R response positions are the last R of them. Padding of its own
    may follow; it belongs to the sample in ``cu_seqlens``.
    """

    tokens: Tensor  # int64 [T], 0 in padding
    labels: Tensor  # int64 [T], 0 in padding
    position_ids: Tensor  # int64 [T], from 0 in each sample, counting on in its padding
    cu_seqlens: Tensor  # int32 [S + 1], or [S + 2] where a dummy sample of padding fills the row
    padding_mask: Tensor  # bool [T], True on padding
    response_mask: Tensor  # bool [T], True where labels[t] is a response token
    response_lengths: tuple[int, ...]  # S of them
    longest: int  # positions of the longest sample, padding included (max_seqlen of attention)

    def spread(self, values: Sequence[float] | Tensor) -> Tensor:
        """Give each response token its sample's value: [S] -> [T], 0 elsewhere.

        Numbers become float32; a tensor keeps its dtype.
        """
        lengths = torch.tensor(self.response_lengths, dtype=torch.int64, device=self.tokens.device)
        return self._place(self._as_tensor(values).repeat_interleave(lengths))

    def scatter(self, sequences: Sequence[Sequence[float] | Tensor]) -> Tensor:
        """Give each response token its own value: S sequences of |o_i| -> [T], 0 elsewhere.

        Numbers become float32; tensors keep their dtype.
        Raises ValueError where a sequence does not have its sample's number of response tokens.
        """
        found = tuple(len(sequence) for sequence in sequences)
        if found != self.response_lengths:
            raise ValueError(f"response lengths are {self.response_lengths}, found {found}")
        pieces = [self._as_tensor(sequence) for sequence in sequences]
        return self._place(torch.cat(pieces) if pieces else self._as_tensor([]))

    def gather(self, values: Tensor) -> list[Tensor]:
        """Take the values of response tokens apart: [T] -> S tensors of |o_i| (inverse of scatter).

        Differentiable. An empty row gives an empty list.
        """
        if not self.response_lengths:
            return []
        return list(values[self.response_mask].split(self.response_lengths))

    def sample_numbers(self) -> Tensor:
        """The number of each position's sample, from 0: int64 [T]; the dummy sample is the last."""
        lengths = self.cu_seqlens.diff().long()
        return torch.repeat_interleave(lengths, output_size=len(self.tokens))

    def ahead(self, depth: int, *values: Tensor) -> tuple[Tensor, ...]:
        """Each position's value ``depth`` positions later in its own sample: [T] -> [T].

        0 where that would be beyond the sample's end.
        """
        positions = torch.arange(len(self.tokens), device=self.tokens.device)
        later, inside = ahead(self.cu_seqlens, positions, depth)
        return tuple(torch.where(inside, value[later], 0) for value in values)

    def to(self, device: torch.device | str) -> PackedRow:
        """Return the same row with every tensor on ``device``."""
        return self._with_each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> PackedRow:
        """Return the same row in page-locked memory, from where ``to`` copies beside the host."""
        return self._with_each(lambda tensor: tensor.pin_memory())

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Tell the allocator that ``stream`` uses the row too, before its memory is used again."""
        for tensor in self._tensors().values():
            tensor.record_stream(stream)

    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def _with_each(self, change: Callable[[Tensor], Tensor]) -> PackedRow:
        return replace(self, **{name: change(value) for name, value in self._tensors().items()})

    def _as_tensor(self, values: Sequence[float] | Tensor) -> Tensor:
        if isinstance(values, Tensor):
            return values.to(self.tokens.device)
        return torch.tensor(values, dtype=torch.float32, device=self.tokens.device)

    def _place(self, of_responses: Tensor) -> Tensor:
        placed = of_responses.new_zeros(self.tokens.shape)
        placed[self.response_mask] = of_responses
        return placed


def padded_length(prompt: int, response: int, sample_multiple: int = 1) -> int:
    """Positions that a sample of so many tokens takes in a row: what a minibatch plan counts."""
    return _rounded_up(prompt + response - 1, sample_multiple)


def pack(
    samples: Sequence[tuple[TokenIds, TokenIds]],
    *,
    row_multiple: int = 1,
    sample_multiple: int = 1,
) -> PackedRow:
    """Pack samples, each (prompt tokens, response tokens), into one row on the CPU.

    Args:
        samples: in the row's order. None at all gives a row of padding only: a rank that has run
            out of samples still takes part in every microbatch.
        row_multiple: T is rounded up to it, at least once, by a dummy sample at the end: tensor
            times twice the context parallel size under sequence parallelism, or the length of
            every row where a pipeline wants equal ones. A multiple of ``sample_multiple``.
        sample_multiple: every sample is padded up to it: 2 x cp under context parallelism, where
            each sample is cut into as many chunks (``engine.parallel.context_slices``).
    Raises:
        ValueError: a sample without prompt or with fewer than two tokens, or multiples that do
            not fit each other.
    """
    if row_multiple % sample_multiple:
        raise ValueError(
            f"row_multiple must be a multiple of sample_multiple ({sample_multiple}),"
            f" found {row_multiple}"
        )
    if any(not len(prompt) or len(prompt) + len(response) < 2 for prompt, response in samples):
        raise ValueError("every sample needs a prompt and two tokens, found one that has not")
    lengths = [padded_length(len(p), len(r), sample_multiple) for p, r in samples]
    filled = sum(lengths)
    total = max(row_multiple, _rounded_up(filled, row_multiple))
    lengths += [total - filled] if total > filled else []
    boundaries = [0, *accumulate(lengths)]
    tokens = np.zeros(total, np.int64)
    labels = np.zeros(total, np.int64)
    is_real = np.zeros(total, np.bool_)
    in_response = np.zeros(total, np.bool_)
    for (prompt, response), start in zip(samples, boundaries, strict=False):
        sequence = np.empty(len(prompt) + len(response), np.int64)
        sequence[: len(prompt)] = prompt
        sequence[len(prompt) :] = response
        end = start + len(sequence) - 1
        tokens[start:end] = sequence[:-1]
        labels[start:end] = sequence[1:]
        is_real[start:end] = True
        in_response[end - len(response) : end] = True
    return PackedRow(
        tokens=torch.from_numpy(tokens),
        labels=torch.from_numpy(labels),
        position_ids=torch.from_numpy(np.concatenate([np.arange(length) for length in lengths])),
        cu_seqlens=torch.tensor(boundaries, dtype=torch.int32),
        padding_mask=torch.from_numpy(~is_real),
        response_mask=torch.from_numpy(in_response),
        response_lengths=tuple(len(response) for _, response in samples),
        longest=max(lengths),
    )


def _rounded_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
