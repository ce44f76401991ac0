"""Derive the pieces of tensors that each rank of a layout holds, from ``config.json`` alone.

``engine.weights.shards`` reads the same off a model that was built. This is plain arithmetic: it
answers for 2048 ranks and 671 billion parameters without any of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from engine.config.layout import LayoutConfig
from engine.config.model_sizes import model_sizes
from engine.models.family import HuggingFaceConfig, family_of
from engine.models.sequence_classifier import as_built
from engine.models.tensor_shapes import (
    Kind,
    elements,
    kind_of,
    layer_of,
    places_of,
    shape_of,
)
from engine.models.weight_rules import expand
from engine.parallel.rank_map import RankCoordinates, rank_coordinates

EMBEDDING = "embedding.word_embeddings.weight"


@dataclass(frozen=True)
class TensorInfo:
    """One megatron tensor (of one expert, where ``expert`` is set), and its Hugging Face names."""

    key: str
    expert: int | None
    shape: tuple[int, ...]
    kind: Kind
    names: tuple[str, ...]

    @property
    def elements(self) -> int:
        """Number of its elements."""
        return elements(tuple(slice(0, size) for size in self.shape))


@dataclass(frozen=True)
class TensorShard:
    """One rank's piece of a tensor; see ``engine.weights.shards.Shard``.

    Attributes:
        whole: the tensor.
        place: its slices along the tensor's axes.
    """

    whole: TensorInfo
    place: tuple[slice, ...]

    @property
    def elements(self) -> int:
        """Number of its elements."""
        return elements(self.place)

    def bytes(self, element_bytes: int) -> int:
        """Return its size in a model whose dtype takes ``element_bytes`` an element."""
        return self.elements * (4 if self.whole.kind.float32 else element_bytes)


def tensor_infos(config: HuggingFaceConfig) -> list[TensorInfo]:
    """Return all tensors of the model that ``config.json`` describes, in megatron's terms.

    Raises:
        RunError: the family is unknown or uses a feature megatron cannot express.
    """
    family, sizes = family_of(config), model_sizes(as_built(config))
    family.architecture(config)  # refuses what megatron cannot express
    found = []
    for (key, expert), tensor_map in expand(family.rules(config)).items():
        kind = kind_of(key)
        found.append(TensorInfo(key, expert, shape_of(kind, sizes), kind, tensor_map.names))
    return found


class Sharding:
    """The pieces of a model's tensors that each rank of a layout holds.

    Args:
        config: contents of ``config.json``.
        layout: the run's layout.

    Raises:
        RunError: the family is unknown or uses a feature megatron cannot express.
    """

    def __init__(self, config: HuggingFaceConfig, layout: LayoutConfig) -> None:
        config = as_built(config)
        self._layout = layout
        self._sizes = model_sizes(config)
        self.tensors = tensor_infos(config)
        self._by_home: dict[tuple[int | None, int | None], list[TensorInfo]] = defaultdict(list)
        for whole in self.tensors:
            self._by_home[layer_of(whole.key), whole.expert].append(whole)
        # The last stage looks words up again for its output layer, or to predict further tokens.
        self._embeds_twice = config.get("tie_word_embeddings", False) or self._sizes.mtp > 0

    def rank_coordinates(self) -> Iterator[RankCoordinates]:
        """Yield the coordinates of every rank, in the order of ranks."""
        return rank_coordinates(self._layout, self._sizes)

    def of(self, coordinates: RankCoordinates) -> list[TensorShard]:
        """Return the pieces that the rank at ``coordinates`` holds."""
        layers = [None, *(layer for part in coordinates.layers for layer in part)]
        return [
            TensorShard(whole, part)
            for layer in layers
            for expert in (None, *coordinates.experts)
            for whole in self._by_home[layer, expert]
            if layer is not None or self._on_stage(whole.key, coordinates.pp)
            for part in self._parts(whole, coordinates)
        ]

    def _on_stage(self, key: str, stage: int) -> bool:
        last = stage == self._layout.pp - 1
        if key == EMBEDDING:
            return stage == 0 or (last and self._embeds_twice)
        return last

    def _parts(self, whole: TensorInfo, coordinates: RankCoordinates) -> list[tuple[slice, ...]]:
        if whole.expert is None:
            return places_of(whole.kind, whole.shape, coordinates.tp, self._layout.tp)
        return places_of(whole.kind, whole.shape, coordinates.etp, self._layout.etp)
