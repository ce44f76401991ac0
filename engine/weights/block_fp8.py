"""Quantise and dequantise weights in FP8 with one scale for each block, as DeepSeek-V3's are.

A checkpoint then holds ``NAME`` in float8_e4m3fn and ``NAME_scale_inv`` in float32; in spite of its
name the latter is what to multiply by. Sources: README_WEIGHTS.md of DeepSeek-V3, FP8 weight
documentation; DeepSeek-V3 technical report (arXiv 2412.19437), section 3.3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from engine.weights.quantisation import Block, grid

FP8 = torch.float8_e4m3fn


def dequantise(weight: Tensor, scale_inv: Tensor, block: Block) -> Tensor:
    """Return the values of a quantised weight.

    Args:
        weight: [rows, columns] float8_e4m3fn.
        scale_inv: [ceil(rows / block rows), ceil(columns / block columns)] float32.
        block: the last blocks of a row or column may be cut off.

    Returns:
        [rows, columns] float32.

    Raises:
        ValueError: the shapes or the dtype do not fit; the sentence goes on after the name.
    """
    if weight.dtype != FP8 or weight.dim() != 2:
        raise ValueError(f"is a {weight.dtype} of shape {list(weight.shape)}, not an FP8 matrix")
    if tuple(scale_inv.shape) != grid(weight.shape, block):
        raise ValueError(
            f"of shape {list(weight.shape)} has scales of shape {list(scale_inv.shape)}, expected "
            f"{list(grid(weight.shape, block))}: one for each {block[0]} x {block[1]}"
        )
    scales = scale_inv.float().repeat_interleave(block[1], 1)[:, : weight.shape[1]]
    whole = weight.float()
    for number, part in enumerate(whole.split(block[0])):
        part *= scales[number]
    return whole


def quantise(weight: Tensor, block: Block) -> tuple[Tensor, Tensor]:
    """Return the nearest weight in FP8; each block's largest value becomes the largest of FP8.

    Args:
        weight: [rows, columns], any floating dtype.
        block: as for :func:`dequantise`. A block of zeros gets the scale 1.

    Returns:
        ``weight`` float8_e4m3fn and ``scale_inv`` float32, shapes as for :func:`dequantise`.

    Raises:
        ValueError: there is a value that is not finite.
    """
    rows, columns = weight.shape
    down, across = grid(weight.shape, block)
    padded = pad(weight.float(), (0, across * block[1] - columns, 0, down * block[0] - rows))
    blocks = padded.view(down, block[0], across, block[1])
    largest = blocks.abs().amax(dim=(1, 3))
    if not largest.isfinite().all():
        raise ValueError("holds a value that is not finite")
    tiny = torch.finfo(torch.float32).tiny  # a smaller scale would lose its own digits
    scales = (largest / torch.finfo(FP8).max).clamp(min=tiny).where(largest > 0, 1.0)
    limit = torch.finfo(FP8).max
    scaled = (blocks / scales[:, None, :, None]).clamp(-limit, limit)
    return scaled.to(FP8).view(padded.shape)[:rows, :columns].contiguous(), scales
