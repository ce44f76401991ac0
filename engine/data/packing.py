"""Several samples in one row, without padding between them.

A row is one microbatch of batch size 1: attention is kept inside each sample by ``cu_seqlens``
(the THD layout), so packing changes no number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedRow:
    """S samples label-aligned one after another, then padding; T tokens in all.

    A sample of P prompt and R response tokens takes P + R - 1 positions: its input is
    (prompt + response)[:-1], its labels are (prompt + response)[1:], and position t is about the
    prediction of labels[t]. Its R response positions are the last R of them.
    """

    tokens: Tensor  # int64 [T], 0 in padding
    labels: Tensor  # int64 [T], 0 in padding
    position_ids: Tensor  # int64 [T], from 0 in each sample and in the padding
    cu_seqlens: Tensor  # int32 [S + 1], or [S + 2] where the padding is a dummy sample at the end
    padding_mask: Tensor  # bool [T], True on padding
    response_mask: Tensor  # bool [T], True where labels[t] is a response token
    response_lengths: tuple[int, ...]  # S of them
    longest: int  # positions of the longest sample, the dummy included (max_seqlen of attention)

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

    def to(self, device: torch.device | str) -> PackedRow:
        """Return the same row with every tensor on ``device``."""
        moved = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)

    def _as_tensor(self, values: Sequence[float] | Tensor) -> Tensor:
        if isinstance(values, Tensor):
            return values.to(self.tokens.device)
        return torch.tensor(values, dtype=torch.float32, device=self.tokens.device)

    def _place(self, of_responses: Tensor) -> Tensor:
        placed = of_responses.new_zeros(self.tokens.shape)
        placed[self.response_mask] = of_responses
        return placed


def pack(samples: Sequence[tuple[Sequence[int], Sequence[int]]], multiple: int = 1) -> PackedRow:
    """Pack samples, each (prompt tokens, response tokens), into one row on the CPU.

    Args:
        samples: in the row's order. None at all gives a row of padding only: a rank that has run
            out of samples still takes part in every microbatch.
        multiple: T is rounded up to it, at least once: tensor times context parallel size under
            sequence parallelism, or the length of every row where a pipeline wants equal ones.
    Raises:
        ValueError: a sample without prompt or with fewer than two tokens.
    """
    tokens: list[int] = []
    labels: list[int] = []
    positions: list[int] = []
    in_response: list[bool] = []
    boundaries = [0]
    for prompt, response in samples:
        sequence = [*prompt, *response]
        length = len(sequence) - 1
        if not prompt or length < 1:
            raise ValueError(f"a sample needs a prompt and two tokens: {prompt=} {response=}")
        tokens += sequence[:-1]
        labels += sequence[1:]
        positions += range(length)
        in_response += [False] * (len(prompt) - 1) + [True] * len(response)
        boundaries.append(boundaries[-1] + length)
    real = len(tokens)
    padding = max(multiple, -(-real // multiple) * multiple) - real
    if padding:
        positions += range(padding)
        boundaries.append(real + padding)
    filler = [0] * padding
    return PackedRow(
        tokens=torch.tensor(tokens + filler, dtype=torch.int64),
        labels=torch.tensor(labels + filler, dtype=torch.int64),
        position_ids=torch.tensor(positions, dtype=torch.int64),
        cu_seqlens=torch.tensor(boundaries, dtype=torch.int32),
        padding_mask=torch.arange(real + padding) >= real,
        response_mask=torch.tensor(in_response + [False] * padding, dtype=torch.bool),
        response_lengths=tuple(len(response) for _, response in samples),
        longest=max(end - start for start, end in pairwise(boundaries)),
    )
