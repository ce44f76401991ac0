"""Dtypes and FP8 quantisation of a written Hugging Face folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from engine.models.config_json import with_dtype_name
from engine.weights import block_fp8, quantisation
from engine.weights.hugging_face import plain_config
from engine.weights.safetensors_file import Described
from tools.convert.sources import Source

FP8 = "fp8"
BLOCK = (128, 128)
"""Rows and columns that share a scale: DeepSeek-V3's."""
KEPT = "e_score_correction_bias"
"""End of the names of DeepSeek's router biases. They move by 0.001 and stay in float32."""

QUANTISED = ("_proj.weight", "_proj_with_mqa.weight", ".w1.weight", ".w2.weight", ".w3.weight")
"""Ends of the names of what is quantised: attention's and the experts' matrices, as published."""
NOT_QUANTISED = "eh_proj.weight"
"""SGLang reads the prediction head's projection unquantised (models/deepseek_nextn.py)."""
QUANTIZATION = {
    "activation_scheme": "dynamic",
    "fmt": "e4m3",
    "quant_method": "fp8",
    "weight_block_size": list(BLOCK),
}


class Precision:
    """Conversion of a checkpoint's tensors to another dtype, or none."""

    def __init__(self, name: str | None) -> None:
        """Args:
        name: ``float32``, ``bfloat16``, or ``fp8`` for what DeepSeek-V3 has in blocks of FP8 and
            the rest in bfloat16; None leaves every tensor as it is, bit for bit.
        """
        self.name = name
        kept = "bfloat16" if name == FP8 else name
        self._dtype: torch.dtype | None = getattr(torch, kept) if kept else None

    def apply(self, names: Sequence[str], parts: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the tensors to write, by name."""
        written: dict[str, Tensor] = {}
        for name, part in zip(names, parts, strict=True):
            if self._is_quantised(name):
                written[name], written[name + quantisation.SCALE] = block_fp8.quantise(part, BLOCK)
            else:
                written[name] = part.to(self._of(name, part.dtype))
        return written

    def describe(self, names: Sequence[str], parts: Sequence[Described]) -> dict[str, Described]:
        """Return shapes and dtypes of what :meth:`apply` will return."""
        written: dict[str, Described] = {}
        for name, part in zip(names, parts, strict=True):
            if self._is_quantised(name):
                scales = quantisation.grid(part.shape, BLOCK)
                written[name] = Described(block_fp8.FP8, part.shape)
                written[name + quantisation.SCALE] = Described(torch.float32, scales)
            else:
                written[name] = Described(self._of(name, part.dtype), part.shape)
        return written

    def config_of(self, source: Source) -> dict[str, Any]:
        """Return ``config.json`` of the folder written from ``source``, which may be quantised."""
        config = source.companions.config
        if self._dtype is None:  # as they are, whatever the source says that they are
            described = [part for m in source.maps.values() for part in source.describe(m)]
            return plain_config(config, ((part.dtype, part.bytes) for part in described))
        plain = {key: value for key, value in config.items() if key != quantisation.KEY}
        dtype = str(self._dtype).removeprefix("torch.")
        plain = with_dtype_name(plain, dtype, always=True)
        return {**plain, quantisation.KEY: QUANTIZATION} if self.name == FP8 else plain

    def _is_quantised(self, name: str) -> bool:
        return self.name == FP8 and name.endswith(QUANTISED) and not name.endswith(NOT_QUANTISED)

    def _of(self, name: str, dtype: torch.dtype) -> torch.dtype:
        return dtype if self._dtype is None or name.endswith(KEPT) else self._dtype
