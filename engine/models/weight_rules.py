"""Weight rules: how tensors of a Hugging Face checkpoint make up megatron's, declaratively.

A family lists :class:`Rule` objects; :func:`expand` writes them out for every layer and expert into
:class:`TensorMap` objects, each of which converts exactly one megatron tensor in both directions.
Megatron tensors are named by their layout-independent checkpoint key (``sharded_state_dict``), so
the same rules serve every tensor, pipeline and expert parallel layout.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # rules are read, and shapes compared, where torch is too slow to start
    from torch import Tensor

Shape = tuple[int, ...]


class Join(Protocol):
    """Joins Hugging Face tensors into one megatron tensor, and splits it again, exactly."""

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Hugging Face tensors, in the rule's order -> the megatron tensor."""
        ...

    def split(self, tensor: Tensor) -> list[Tensor]:
        """The megatron tensor -> Hugging Face tensors, in the rule's order."""
        ...

    def split_shape(self, shape: Shape) -> list[Shape]:
        """The megatron tensor's shape -> the shapes that :meth:`split` would give."""
        ...


@dataclass(frozen=True)
class Same:
    """One tensor, the same on both sides."""

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """The only part."""
        (part,) = parts
        return part

    def split(self, tensor: Tensor) -> list[Tensor]:
        """The tensor itself."""
        return [tensor]

    def split_shape(self, shape: Shape) -> list[Shape]:
        """The shape itself."""
        return [shape]


@dataclass(frozen=True)
class Copies:
    """One tensor that a checkpoint may hold under several names, such as the embedding.

    ``join`` raises ValueError if they differ.
    """

    names: int = 1

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """The first part; the others must equal it."""
        first, *others = parts
        if not all(first.equal(other) for other in others):
            raise ValueError("should be copies of one tensor, found them different")
        return first

    def split(self, tensor: Tensor) -> list[Tensor]:
        """The tensor itself, then true copies: safetensors refuses to write shared memory."""
        return [tensor, *(tensor.clone() for _ in range(self.names - 1))]

    def split_shape(self, shape: Shape) -> list[Shape]:
        """The same shape for each name."""
        return [shape] * self.names


@dataclass(frozen=True)
class GateUp:
    """``[gate; up]`` along the rows: megatron sends the first half of fc1 through SiLU."""

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """gate [f, h], up [f, h] -> [2f, h]."""
        import torch

        return torch.cat(list(parts))

    def split(self, tensor: Tensor) -> list[Tensor]:
        """[2f, h] -> gate [f, h], up [f, h]."""
        return list(tensor.chunk(2))

    def split_shape(self, shape: Shape) -> list[Shape]:
        """[2f, h] -> [f, h], [f, h]."""
        return [(shape[0] // 2, *shape[1:])] * 2


@dataclass(frozen=True)
class GroupedQkv:
    """Query, key and value rows interleaved by query group: its q heads, its k head, its v head.

    Works on weights [rows, hidden] and biases [rows].
    """

    heads: int
    groups: int
    head_dim: int

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """q [heads*d, h], k [groups*d, h], v [groups*d, h] -> [(heads + 2*groups)*d, h]."""
        import torch

        grouped = [part.reshape(self.groups, -1, *part.shape[1:]) for part in parts]
        return torch.cat(grouped, dim=1).flatten(0, 1)

    def split(self, tensor: Tensor) -> list[Tensor]:
        """[(heads + 2*groups)*d, h] -> q, k, v."""
        rows = [self.heads // self.groups * self.head_dim, self.head_dim, self.head_dim]
        grouped = tensor.reshape(self.groups, sum(rows), *tensor.shape[1:])
        return [part.flatten(0, 1) for part in grouped.split(rows, dim=1)]

    def split_shape(self, shape: Shape) -> list[Shape]:
        """[(heads + 2*groups)*d, h] -> [heads*d, h], [groups*d, h], [groups*d, h]."""
        rows = (
            self.heads * self.head_dim,
            self.groups * self.head_dim,
            self.groups * self.head_dim,
        )
        return [(count, *shape[1:]) for count in rows]


@dataclass(frozen=True)
class Rule:
    """One kind of megatron tensor and the Hugging Face tensors it is made of.

    Attributes:
        megatron: checkpoint key; ``{layer}`` stands for each number in ``layers``.
        hugging_face: names in the join's order; ``{layer}`` and ``{expert}`` are filled in.
        join: how they come together.
        layers: layer numbers the rule holds for; None for a tensor outside the layers.
        experts: number of experts, for a tensor that exists once an expert; None otherwise.
        also: names under which some checkpoints hold one more of the join's :class:`Copies`.
    """

    megatron: str
    hugging_face: tuple[str, ...]
    join: Join = Same()
    layers: range | None = None
    experts: int | None = None
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class TensorMap:
    """One megatron tensor (of one expert, where ``expert`` is set) and its Hugging Face names."""

    key: str
    expert: int | None
    names: tuple[str, ...]
    join: Join
    also: tuple[str, ...] = ()

    def as_stored(self, stored: Collection[str]) -> TensorMap:
        """This map for a checkpoint that holds the names ``stored``: of copies, those it has."""
        if not isinstance(self.join, Copies):
            return self
        first, *copies = self.names
        also = [name for name in self.also if name in stored]
        # The first name is needed, unless one of the others stands for it.
        needed = [] if also and first not in stored else [first]
        names = (*needed, *(name for name in copies if name in stored), *also)
        return TensorMap(self.key, self.expert, names, Copies(len(names)))

    def to_hugging_face(self, tensor: Tensor) -> dict[str, Tensor]:
        """The full megatron tensor -> Hugging Face tensors by name."""
        return dict(zip(self.names, self.join.split(tensor), strict=True))

    def to_megatron(self, parts: Sequence[Tensor]) -> Tensor:
        """Hugging Face tensors in the order of ``names`` -> the full megatron tensor."""
        return self.join.join(parts)


def expand(rules: Sequence[Rule]) -> dict[tuple[str, int | None], TensorMap]:
    """All tensors that ``rules`` speak of, by (megatron key, expert)."""
    maps = [tensor_map for rule in rules for tensor_map in _expand(rule)]
    by_key = {(tensor_map.key, tensor_map.expert): tensor_map for tensor_map in maps}
    if len(by_key) != len(maps):
        raise ValueError("two weight rules name the same megatron tensor")
    return by_key


def _expand(rule: Rule) -> Iterator[TensorMap]:
    for layer in rule.layers if rule.layers is not None else (None,):
        for expert in range(rule.experts) if rule.experts is not None else (None,):
            fill = {"layer": layer, "expert": expert}
            names = tuple(name.format(**fill) for name in rule.hugging_face)
            yield TensorMap(rule.megatron.format(**fill), expert, names, rule.join, rule.also)
