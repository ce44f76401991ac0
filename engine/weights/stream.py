"""Stream a model's weights under Hugging Face names, one bucket at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

from engine.models.weight_rules import TensorMap
from engine.weights.buckets import Bucket, plan_buckets
from engine.weights.hugging_face import HuggingFaceFolder
from engine.weights.model_config import model_config
from engine.weights.safetensors_file import Described
from engine.weights.tensor_maps import MapKey, maps_of, natural_order
from engine.weights.tensor_stream import TensorStream

NamedTensors: TypeAlias = Iterator[tuple[str, Tensor]]
"""Pairs of a Hugging Face name and its tensor; each is made when it is asked for."""


class WeightStream:
    """The weights of a trained model as its servers know them. Built and called by all ranks."""

    def __init__(self, chunks: Sequence[torch.nn.Module], source: HuggingFaceFolder) -> None:
        """Exchange which rank holds which pieces.

        Args:
            chunks: the trained model's chunks on this rank.
            source: the folder it came from; it says which names there are.

        Raises:
            ValueError: the model holds a tensor that no rule names, or lacks one.
        """
        maps = maps_of(model_config(chunks, source), source.names)
        self._stream = TensorStream(chunks)
        tensors = self._stream.tensors
        if tensors.keys() != maps.keys():
            differ = sorted(map(str, tensors.keys() ^ maps.keys()))
            raise ValueError(f"weight rules and model differ in {differ[:5]}")
        in_order = sorted(maps.items(), key=lambda item: natural_order(item[1].names[0]))
        self._maps: dict[MapKey, TensorMap] = dict(in_order)
        self._described = {key: _described(m, tensors[key]) for key, m in in_order}

    def plan(self, limit_bytes: int) -> list[Bucket]:
        """Return the buckets of :meth:`buckets`, of all ranks."""
        sizes = {
            key: sum(part.bytes for part in named.values())
            for key, named in self._described.items()
        }
        return plan_buckets(sizes, limit_bytes, dist.get_world_size())

    def describe(self, bucket: Bucket) -> dict[str, Described]:
        """Return dtype and shape of each tensor in ``bucket``, in the order in which they come."""
        return {n: part for key in bucket.keys for n, part in self._described[key].items()}

    def buckets(
        self, limit_bytes: int, device: torch.device | str = "cpu"
    ) -> Iterator[tuple[Bucket, NamedTensors]]:
        """Yield the buckets that come to this rank, each with its tensors as they are now.

        Called by all ranks together, and each takes all of its buckets. Taking a bucket's pairs
        frees its memory; pairs that were not taken are gone when the next bucket is asked for.

        Args:
            limit_bytes: most bytes of a bucket; a tensor that is larger is alone in one. For what
                memory a rank needs see ``engine.weights.tensor_stream``.
            device: where the tensors are to be.
        """
        for bucket, whole in self._stream.buckets(self.plan(limit_bytes), device):
            yield bucket, self._named(whole)
            whole.clear()  # before the next one travels, whatever was taken

    def _named(self, whole: dict[MapKey, Tensor]) -> NamedTensors:
        for key in list(whole):
            yield from self._maps[key].to_hugging_face(whole.pop(key)).items()


def _described(tensor_map: TensorMap, whole: Described) -> dict[str, Described]:
    shapes = tensor_map.join.split_shape(whole.shape)
    return {
        n: Described(whole.dtype, part) for n, part in zip(tensor_map.names, shapes, strict=True)
    }
