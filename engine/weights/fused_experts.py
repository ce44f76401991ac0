"""Find published tensors inside fused ones, in which transformers 5 may save all experts.

In memory transformers 5 holds the experts of a layer as two tensors, and ``save_pretrained(...,
save_original_format=False)`` writes them so (transformers' ``conversion_mapping``):

    mlp.experts.gate_up_proj [experts, 2 f, h]: each expert's gate, then its up
    mlp.experts.down_proj    [experts, h, f]

A family that publishes its experts in another block than ``mlp`` has its router moved there, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engine.errors import RunError
from engine.models.family import FeedForwardNames
from engine.weights.safetensors_header import StoredTensor

_BLOCK = "mlp."
_GATE_UP, _DOWN = f".{_BLOCK}experts.gate_up_proj", f".{_BLOCK}experts.down_proj"
_ROUTER = f".{_BLOCK}gate."


@dataclass(frozen=True)
class Part:
    """Where a published tensor lies.

    Attributes:
        name: of the stored tensor that it is a part of.
        place: its index along the first axes of that: an expert and perhaps rows; () for all of it.
        shape: its own shape; None where it was not needed.
    """

    name: str
    place: tuple[int | slice, ...] = ()
    shape: tuple[int, ...] | None = None


def is_fused(name: str) -> bool:
    """Say whether a stored tensor holds all experts of a layer."""
    return name.endswith((_GATE_UP, _DOWN))


def published_parts(
    names: Mapping[str, object],
    stored: Callable[[str], StoredTensor],
    published: FeedForwardNames,
) -> dict[str, Part]:
    """Return where the tensors of a folder lie, by the names under which makers publish them.

    Args:
        names: of all stored tensors.
        stored: returns what a file's header says of a fused one.
        published: how the family calls the tensors of an expert.

    Raises:
        RunError: a fused tensor has another form than above, or the folder holds one tensor twice.
    """
    fused = [name for name in names if is_fused(name)]
    moved = {name.partition(_BLOCK)[0] for name in fused} if published.block != _BLOCK else set()
    found: dict[str, Part] = {}
    for name in names:
        if is_fused(name):
            parts = _parts(name, stored(name), published)
        elif _ROUTER in name and name.partition(_BLOCK)[0] in moved:
            parts = {name.replace(_ROUTER, f".{published.block}gate."): Part(name)}
        else:
            parts = {name: Part(name)}
        for part in parts:
            if part in found:
                raise RunError(
                    f"model: {part} is stored twice: as {found[part].name} and as {name}"
                )
        found |= parts
    return found


def _parts(name: str, stored: StoredTensor, published: FeedForwardNames) -> dict[str, Part]:
    if len(stored.shape) != 3 or stored.dtype.startswith("F8") or not 0 < stored.shape[0] < 10_000:
        raise RunError(
            f"model: {name} is {stored.dtype} of shape {list(stored.shape)}; expected all experts "
            "of a layer, not quantised, in three axes"
        )
    experts, rows, columns = stored.shape
    layer = name.removesuffix(_GATE_UP).removesuffix(_DOWN)
    if name.endswith(_DOWN):
        places = {published.down: slice(0, rows)}
    else:
        half = rows // 2
        places = {published.gate: slice(0, half), published.up: slice(half, rows)}
    return {
        f"{layer}.{published.block}experts.{expert}.{matrix}.weight": Part(
            name, (expert, place), (place.stop - place.start, columns)
        )
        for expert in range(experts)
        for matrix, place in places.items()
    }
