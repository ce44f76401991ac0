"""Files of the target and the tensors in each, planned before the first byte is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.errors import RunError
from engine.models.weight_rules import TensorMap


@dataclass(frozen=True)
class PlannedFile:
    """One file of the target.

    Attributes:
        name: of the file.
        maps: the tensors in it, in their order.
        bytes: about its size.
    """

    name: str
    maps: tuple[TensorMap, ...]
    bytes: int


def check_plan(maps: Iterable[TensorMap], planned: Sequence[PlannedFile]) -> None:
    """Check that every tensor is written exactly once, so every source tensor is used once.

    Raises:
        RunError: one is not; a defect of ours, reported all the same.
    """
    wanted = Counter((m.key, m.expert) for m in maps)
    found = Counter((m.key, m.expert) for file in planned for m in file.maps)
    if wanted != found or set(wanted.values()) > {1}:
        odd = sorted(map(str, (wanted - found) + (found - wanted)))
        raise RunError(
            f"conversion would not write every tensor exactly once: {', '.join(odd[:3])}"
        )
    if len({file.name for file in planned}) != len(planned):
        raise RunError("conversion would write two files of one name")
