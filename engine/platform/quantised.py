"""Recognise, read and write the parameters that Transformer Engine keeps in FP8.

No other file knows what they are. Such a parameter presents itself as a tensor of its nominal dtype
(bfloat16), but holds FP8 values and their scales; where those differ by tile it can neither be cut
nor viewed flat. Never run: there is no such tensor without a GPU. Tests put a class of their own
where megatron keeps this one.

Sources: Transformer Engine 2.11, pytorch/quantized_tensor.py; megatron-core 0.16.1, fp8_utils.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def is_quantised(tensor: Any) -> bool:
    """Return whether ``tensor`` holds FP8 values and their scales."""
    from megatron.core.fp8_utils import is_float8tensor  # where accelerator.prepare() has been

    return bool(is_float8tensor(tensor))


def any_quantised(chunks: Iterable[torch.nn.Module]) -> bool:
    """Return whether a module among ``chunks`` has such a parameter."""
    return any(is_quantised(p) for chunk in chunks for p in chunk.parameters())


def dequantise(tensor: Tensor) -> Tensor:
    """Return the values that matrix products see: a copy, a plain tensor of the nominal dtype."""
    return tensor.detach().dequantize()


@torch.no_grad()
def quantise_into(tensor: Tensor, values: Tensor) -> None:
    """Round ``values``, a plain tensor of the same shape, into ``tensor`` in place; new scales."""
    tensor.copy_(values)  # not of a detached alias: a transpose is kept beside the tensor itself
