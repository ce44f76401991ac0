"""What a tensor is, in a line: dtype, shape, digest of its bytes; and what it must not be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from blake3 import blake3
from torch import Tensor

from engine.errors import RunError
from tools.convert.safetensors_file import bytes_of

WEIGHT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class TensorDigest:
    """Equal for two tensors exactly when dtype, shape and every bit are."""

    dtype: str
    shape: tuple[int, ...]
    blake3: str

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> TensorDigest:
        """What :meth:`as_json` gave."""
        return cls(found["dtype"], tuple(found["shape"]), found["blake3"])


def tensor_digest(tensor: Tensor) -> TensorDigest:
    """Read every byte of ``tensor``, which is on the CPU."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    return TensorDigest(dtype, tuple(tensor.shape), blake3(bytes_of(tensor)).hexdigest())


def check_weights(names: Sequence[str], parts: Sequence[Tensor], where: str) -> None:
    """Refuse what no weight is.

    Args:
        names: of ``parts``, which are to be joined into one tensor.

    Raises:
        RunError: another dtype than that of weights, parts of different dtypes (joining them would
            silently change one), NaN or infinity; names the tensor.
    """
    for name, part in zip(names, parts, strict=True):
        if part.dtype not in WEIGHT_DTYPES:
            raise RunError(
                f"{where}: {name} is {_name(part.dtype)}; expected weights in "
                f"{', '.join(map(_name, WEIGHT_DTYPES))}"
            )
        if part.dtype != parts[0].dtype:
            raise RunError(
                f"{where}: {name} is {_name(part.dtype)}, but {names[0]}, with which it makes one "
                f"tensor, is {_name(parts[0].dtype)}"
            )
        # aminmax passes NaN on, and reads the tensor once without making another.
        if part.numel() and not all(bound.isfinite() for bound in torch.aminmax(part)):
            bad = int((~part.isfinite()).sum())
            raise RunError(f"{where}: {name} has {bad:,} weights that are NaN or infinite")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
