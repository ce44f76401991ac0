"""Where a layout cuts the model's tensors: which stage and experts' rank hold one, in what pieces.

A checkpoint loads in every layout, whatever its pieces are. But a rank that finds exactly its own
pieces reads nothing else, so files are written as the layout that will load them wants them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from engine.config.stages import stage_layers

Cut = tuple[slice, ...]
"""The part of a tensor that one piece is."""

_ROWS = (  # column-parallel linears: tensor parallel ranks share the rows, output features
    "word_embeddings.weight",
    "output_layer.weight",
    "linear_qkv.weight",
    "linear_qkv.bias",
    "linear_q_proj.weight",
    "linear_q_up_proj.weight",
    "linear_kv_up_proj.weight",
    "eh_proj.weight",
)
_HALVES_OF_ROWS = "linear_fc1.weight"  # gate above up: each rank has a part of both
_COLUMNS = ("linear_proj.weight", "linear_fc2.weight")  # row-parallel linears
_LAYER = re.compile(r"decoder\.layers\.(\d+)\.")


@dataclass(frozen=True)
class Cuts:
    """How many ways a checkpoint is cut.

    Attributes:
        tp: tensor parallel size: pieces of each split tensor (of each half of gate and up).
        pp: pipeline stages, which have files of their own.
        ep: expert parallel size; each share of the experts has files of its own.
    """

    tp: int = 1
    pp: int = 1
    ep: int = 1

    def pieces(self, key: str, expert: int | None, shape: Sequence[int]) -> list[Cut]:
        """The pieces of one tensor, in the order of ranks. Experts are not cut (etp = 1)."""
        whole = tuple(slice(0, size) for size in shape)
        ways = 1 if expert is not None else self.tp
        if key.endswith(_HALVES_OF_ROWS):
            half = shape[0] // 2
            spans = [*_spans(0, half, ways), *_spans(half, shape[0], ways)]
            return [(span, *whole[1:]) for span in spans]
        if key.endswith(_ROWS):
            return [(span, *whole[1:]) for span in _spans(0, shape[0], ways)]
        if key.endswith(_COLUMNS):
            return [(whole[0], span) for span in _spans(0, shape[1], ways)]
        return [whole]

    def stage(self, key: str, layers: int) -> int:
        """The pipeline stage that holds ``key`` of a model with so many layers.

        Raises:
            ValueError: the layers do not fill the stages.
        """
        held = stage_layers(layers, self.pp)
        if (found := _LAYER.match(key)) is not None:
            return next(n for n, those in enumerate(held) if int(found[1]) in those)
        return 0 if key.startswith("embedding.") else self.pp - 1

    def expert_rank(self, expert: int | None, experts: int) -> int:
        """The expert parallel rank that holds ``expert``; 0 for what is no expert."""
        return 0 if expert is None else expert * self.ep // experts


def _spans(start: int, stop: int, parts: int) -> list[slice]:
    """``start`` to ``stop`` in equal spans, the first ones longer where it does not divide."""
    size, longer = divmod(stop - start, parts)
    spans = []
    for part in range(parts):
        end = start + size + (part < longer)
        spans.append(slice(start, end))
        start = end
    return [span for span in spans if span.start < span.stop]
