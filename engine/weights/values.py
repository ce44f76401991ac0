"""Refuse tensors that cannot be weights, by dtype or values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.errors import RunError

WEIGHT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def check_weights(names: Sequence[str], parts: Sequence[Tensor], where: str) -> None:
    """Refuse tensors that are no weights: by dtype, or for values that are not finite.

    Args:
        names: of ``parts``, which are to be joined into one tensor.
        where: what the message begins with.

    Raises:
        RunError: another dtype than that of weights, parts of different dtypes (joining them would
            silently change one), NaN or infinity; names the tensor.
    """
    for name, part in zip(names, parts, strict=True):
        if part.dtype not in WEIGHT_DTYPES:
            raise RunError(
                f"{where}: {name} is {_dtype_name(part.dtype)}; expected weights in "
                f"{', '.join(map(_dtype_name, WEIGHT_DTYPES))}"
            )
        if part.dtype != parts[0].dtype:
            raise RunError(
                f"{where}: {name} is {_dtype_name(part.dtype)}, but {names[0]}, with which it "
                f"makes one tensor, is {_dtype_name(parts[0].dtype)}"
            )
        # aminmax passes NaN on, and reads the tensor once without making another.
        if part.numel() and not all(bound.isfinite() for bound in torch.aminmax(part)):
            bad = int((~part.isfinite()).sum())
            raise RunError(f"{where}: {name} has {bad:,} weights that are NaN or infinite")


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
