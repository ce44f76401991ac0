"""The numbers that a Hugging Face folder is written in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tools.convert.safetensors_file import Described

KEPT = "e_score_correction_bias"
"""End of the names of DeepSeek's router biases. They move by 0.001 and stay in float32."""


class Precision:
    """What becomes of the tensors of a checkpoint: nothing, or another dtype."""

    def __init__(self, name: str | None) -> None:
        """Args:
        name: ``float32``, ``bfloat16``; None leaves every tensor as it is, bit for bit.
        """
        self.name = name
        self._dtype: torch.dtype | None = getattr(torch, name) if name else None

    def apply(self, names: Sequence[str], parts: Sequence[Tensor]) -> dict[str, Tensor]:
        """The tensors to write, by name."""
        return {
            name: part.to(self._of(name, part.dtype))
            for name, part in zip(names, parts, strict=True)
        }

    def describe(self, names: Sequence[str], parts: Sequence[Described]) -> dict[str, Described]:
        """What :meth:`apply` will return."""
        return {
            name: Described(self._of(name, part.dtype), part.shape)
            for name, part in zip(names, parts, strict=True)
        }

    def config(self, config: dict[str, Any]) -> dict[str, Any]:
        """``config.json`` of the written folder."""
        if self.name is None:
            return config
        key = "torch_dtype" if "torch_dtype" in config else "dtype"
        return {**config, key: self.name}

    def _of(self, name: str, dtype: torch.dtype) -> torch.dtype:
        return dtype if self._dtype is None or name.endswith(KEPT) else self._dtype
