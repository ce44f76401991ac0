"""Which pieces of which tensors a rank holds: plain arithmetic, for any number of ranks.

What ``engine.weights.shards`` reads off a model that was built, this derives from ``config.json``
and the layout; so it answers for 2048 ranks and 671 billion parameters at once, without them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from engine.config.layout import LayoutConfig
from engine.config.model_sizes import model_sizes
from engine.models.family import HuggingFaceConfig, family_of
from engine.models.tensor_shapes import (
    Kind,
    elements,
    kind_of,
    layer_of,
    named_sizes,
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
        """How many it has."""
        return elements(tuple(slice(0, size) for size in self.shape))


@dataclass(frozen=True)
class TensorShard:
    """A piece of a tensor; see ``engine.weights.shards.Shard``."""

    whole: TensorInfo
    place: tuple[slice, ...]

    @property
    def elements(self) -> int:
        """How many it has."""
        return elements(self.place)

    def bytes(self, element_bytes: int) -> int:
        """Its size in a model whose dtype has ``element_bytes``."""
        return self.elements * (4 if self.whole.kind.float32 else element_bytes)


def tensor_infos(config: HuggingFaceConfig) -> list[TensorInfo]:
    """All tensors of the model that ``config.json`` describes, in megatron's terms.

    Raises:
        RunError: the family is unknown or uses a feature megatron cannot express.
    """
    family = family_of(config)
    sizes = named_sizes(family.architecture(config), config["vocab_size"])
    found = []
    for (key, expert), tensor_map in expand(family.rules(config)).items():
        kind = kind_of(key)
        found.append(TensorInfo(key, expert, shape_of(kind, sizes), kind, tensor_map.names))
    return found


class Sharding:
    """What each rank of a layout holds of a model.

    Args:
        config: contents of ``config.json``.
        layout: the run's layout.

    Raises:
        RunError: the family is unknown or uses a feature megatron cannot express.
    """

    def __init__(self, config: HuggingFaceConfig, layout: LayoutConfig) -> None:
        self._layout = layout
        self._sizes = model_sizes(config)
        self.tensors = tensor_infos(config)
        self._by_home: dict[tuple[int | None, int | None], list[TensorInfo]] = defaultdict(list)
        for whole in self.tensors:
            self._by_home[layer_of(whole.key), whole.expert].append(whole)
        # The last stage looks words up again for its output layer, or to predict further tokens.
        self._embeds_twice = config.get("tie_word_embeddings", False) or self._sizes.mtp > 0

    def rank_coordinates(self) -> Iterator[RankCoordinates]:
        """The place of every rank, in their order."""
        return rank_coordinates(self._layout, self._sizes)

    def of(self, place: RankCoordinates) -> list[TensorShard]:
        """The pieces that the rank at ``place`` holds."""
        layers = [None, *(layer for part in place.layers for layer in part)]
        return [
            TensorShard(whole, part)
            for layer in layers
            for expert in (None, *place.experts)
            for whole in self._by_home[layer, expert]
            if layer is not None or self._on_stage(whole.key, place.pp)
            for part in self._parts(whole, place)
        ]

    def _on_stage(self, key: str, stage: int) -> bool:
        last = stage == self._layout.pp - 1
        if key == EMBEDDING:
            return stage == 0 or (last and self._embeds_twice)
        return last

    def _parts(self, whole: TensorInfo, place: RankCoordinates) -> list[tuple[slice, ...]]:
        if whole.expert is None:
            return places_of(whole.kind, whole.shape, place.tp, self._layout.tp)
        return places_of(whole.kind, whole.shape, place.etp, self._layout.etp)
