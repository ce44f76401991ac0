"""Split tensors as a layout does: pipeline stage, expert-parallel rank and pieces of each.

A checkpoint loads in every layout, whatever its pieces are. But a rank that finds exactly its own
pieces reads nothing else, so files are written as the layout that will load them wants them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.config.stages import stage_layers
from engine.models.tensor_shapes import kind_of, layer_of

Cut = tuple[slice, ...]
"""The part of a tensor that one piece is."""


@dataclass(frozen=True)
class Cuts:
    """Numbers of parts into which a checkpoint is split.

    Attributes:
        tp: tensor parallel size: pieces of each split tensor (of each half of gate and up).
        pp: pipeline stages, which have files of their own.
        ep: expert parallel size; each share of the experts has files of its own.
    """

    tp: int = 1
    pp: int = 1
    ep: int = 1

    def pieces(self, key: str, expert: int | None, shape: Sequence[int]) -> list[Cut]:
        """Return the pieces of one tensor, in the order of ranks. Experts are not cut (etp = 1)."""
        kind = kind_of(key)
        whole = tuple(slice(0, size) for size in shape)
        if kind.cut is None:
            return [whole]
        part = shape[kind.cut] // kind.parts  # gate above up: each rank has a share of both
        ways = self.tp if expert is None else 1
        spans = [s for n in range(kind.parts) for s in _spans(n * part, (n + 1) * part, ways)]
        return [(*whole[: kind.cut], span, *whole[kind.cut + 1 :]) for span in spans]

    def stage(self, key: str, layers: int) -> int:
        """Return the pipeline stage that holds ``key`` of a model with so many layers.

        Raises:
            ValueError: the layers do not fill the stages.
        """
        held = stage_layers(layers, self.pp)
        if (layer := layer_of(key)) is not None:
            return next(stage for stage, those in enumerate(held) if layer in those)
        return 0 if key.startswith("embedding.") else self.pp - 1

    def expert_rank(self, expert: int | None, experts: int) -> int:
        """Return the expert parallel rank that holds ``expert``; 0 for what is no expert."""
        return 0 if expert is None else expert * self.ep // experts


def _spans(start: int, stop: int, parts: int) -> list[slice]:
    """Return ``start`` to ``stop`` in equal spans, the first ones longer by the remainder."""
    size, longer = divmod(stop - start, parts)
    spans = []
    for part in range(parts):
        end = start + size + (part < longer)
        spans.append(slice(start, end))
        start = end
    return [span for span in spans if span.start < span.stop]
