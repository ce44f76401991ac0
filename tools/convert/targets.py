"""Interface of the formats that a conversion writes, and their shared record."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from engine.errors import RunError
from engine.models.weight_rules import TensorMap
from tools.convert.plan import PlannedFile

RECORD = "conversion.json"
"""In every converted folder: where it comes from, and what each tensor is."""

Tensors = tuple[TensorMap, dict[str, Tensor]]
"""A map and the tensors to write for it, by Hugging Face name."""


class Target(Protocol):
    """A checkpoint to write.

    Attributes:
        planned: its files.
        options: what else decides its content; JSON values.
    """

    planned: list[PlannedFile]
    options: dict[str, Any]

    def prepare(self, tensor_map: TensorMap, parts: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the tensors to write, from those of the source."""
        ...

    def write(self, file: Path, planned: PlannedFile, tensors: Iterable[Tensors]) -> dict[str, Any]:
        """Write one file and sync it to the disk.

        Returns:
            What :meth:`read_back` and :meth:`complete` need of it; JSON values.

        Raises:
            OSError: the file system refuses.
        """
        ...

    def read_back(
        self, file: Path, planned: PlannedFile, written: dict[str, Any]
    ) -> Iterator[Tensors]:
        """Yield the tensors of the file on the disk, as :meth:`prepare` made them.

        Raises:
            OSError, ValueError: it cannot be read.
        """
        ...

    def complete(self, folder: Path, written: Mapping[str, dict[str, Any]]) -> None:
        """Write everything beside the planned files. Raises OSError."""
        ...


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the record of how ``folder`` was converted; None where it was not.

    Raises:
        RunError: the record is damaged.
    """
    try:
        found: dict[str, Any] = json.loads((folder / RECORD).read_text())
        if not all(isinstance(found[key], dict) for key in ("options", "tensors")):
            raise ValueError("options and tensors are no objects")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder / RECORD} is damaged: {error}") from None
    return found
