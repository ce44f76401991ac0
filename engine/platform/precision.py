"""Decide which precisions a machine can train in: plain rules, tested for every machine.

Sources: Transformer Engine 2.11, pytorch/quantization.py (``check_fp8_support``,
``check_fp8_block_scaling_support``, ``check_mxfp8_support``).
"""

from __future__ import annotations

from dataclasses import dataclass

Version = tuple[int, int]

_LEAST_CAPABILITY: dict[str, Version] = {
    "tensorwise": (8, 9),
    "delayed": (8, 9),
    "blockwise": (9, 0),
    "mxfp8": (10, 0),
}
_ARCHITECTURE = {(8, 9): "Ada", (9, 0): "Hopper", (10, 0): "Blackwell"}
_MXFP8_BELOW: Version = (12, 0)
"""Consumer Blackwell lacks some of its products."""
_BLOCKWISE_CUDA: Version = (12, 9)
_ADA_CUDA: Version = (12, 1)


@dataclass(frozen=True)
class Hardware:
    """The properties of a machine that decide about precision.

    Attributes:
        capability: CUDA compute capability of this process's GPU, None without one.
        cuda: version of CUDA that torch was built for, None for a CPU build.
        transformer_engine: whether Transformer Engine can be imported.
    """

    capability: Version | None
    cuda: Version | None
    transformer_engine: bool


def fp8_obstacle(recipe: str, hardware: Hardware) -> str | None:
    """Return why ``hardware`` cannot train with the FP8 ``recipe``; None where it can.

    Args:
        recipe: ``blockwise``, ``tensorwise``, ``delayed`` or ``mxfp8``; ``none`` always can.
    """
    if recipe == "none":
        return None
    capability, cuda = hardware.capability, hardware.cuda
    if capability is None or cuda is None:
        return f"{recipe} needs a GPU, found none"
    if not hardware.transformer_engine:
        return f"{recipe} needs Transformer Engine, which cannot be imported here"
    least = _LEAST_CAPABILITY[recipe]
    if capability < least:
        return (
            f"{recipe} needs compute capability {_dotted(least)} ({_ARCHITECTURE[least]}) or "
            f"higher, found {_dotted(capability)}"
        )
    if recipe == "mxfp8" and capability >= _MXFP8_BELOW:
        return (
            f"mxfp8 needs compute capability below {_dotted(_MXFP8_BELOW)}, found "
            f"{_dotted(capability)}"
        )
    if recipe == "blockwise" and cuda < _BLOCKWISE_CUDA:
        return f"blockwise needs CUDA {_dotted(_BLOCKWISE_CUDA)} or higher, found {_dotted(cuda)}"
    if capability < (9, 0) and cuda < _ADA_CUDA:
        return f"{recipe} needs CUDA {_dotted(_ADA_CUDA)} or higher on Ada, found {_dotted(cuda)}"
    return None


def offload_obstacle(share: float, hardware: Hardware) -> str | None:
    """Return why the optimizer cannot be moved from the GPU to its host; None where it can."""
    if share and hardware.capability is None:
        return "expected 0 without a GPU: all of the optimizer is on the host already"
    return None


def _dotted(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
