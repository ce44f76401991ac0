"""What ``config.json`` and tensors' names say of quantised weights; no torch.

One quantisation can be read, blocks of FP8 as DeepSeek-V3's: ``engine.weights.block_fp8``. All
others are known by name, so that they are refused by it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import RunError
from engine.models.config_json import dtype_name

Block = tuple[int, int]
"""Rows and columns that share a scale."""

SCALE = "_scale_inv"
"""End of the name of a weight's scales."""

KEY = "quantization_config"
_DTYPES = ("float32", "bfloat16", "float16")
_ELSEWHERE = {"compression_config": "compressed-tensors", "quantization": "mlx"}
"""Other keys that say so, where there is no :data:`KEY` -> by what the weights are quantised."""
_ENDS = {
    ".qweight": "GPTQ or AWQ",
    ".qzeros": "GPTQ or AWQ",
    ".weight_packed": "compressed-tensors",
    ".weight_scale": "compressed-tensors or ModelOpt",
    ".absmax": "bitsandbytes",
    ".SCB": "bitsandbytes",
    ".biases": "MLX",
    ".W_q": "HQQ",
    ".codebooks": "AQLM",
    "._data": "Quanto",
    SCALE: "block FP8 (config.json lacks its quantization_config)",
}
"""Ends of names of tensors that only quantised folders hold -> by what."""


@dataclass(frozen=True)
class BlockFp8:
    """The quantisation of a checkpoint in blocks of FP8.

    Attributes:
        block: rows and columns that share a scale.
        dtype: of its weights once dequantised: ``bfloat16`` and the like.
    """

    block: Block
    dtype: str


def described(config: Mapping[str, Any]) -> BlockFp8 | None:
    """Return the quantisation that ``config.json`` describes; None if nothing is quantised.

    Raises:
        RunError: another quantisation than blocks of E4M3.
    """
    for key, method in _ELSEWHERE.items():
        if not config.get(KEY) and isinstance(config.get(key), Mapping):
            raise _unreadable(method)
    found = config.get(KEY)
    if not found:
        return None
    if not isinstance(found, Mapping) or not isinstance(method := _method(found), str):
        raise RunError(f"model: config.json has a {KEY} without a quant_method")
    block = found.get("weight_block_size")
    if method != "fp8" or found.get("fmt", "e4m3") != "e4m3" or not block:
        kind = f"{method[:40]} without weight_block_size" if method == "fp8" else method[:40]
        raise _unreadable(kind)
    if not (
        isinstance(block, list)
        and len(block) == 2
        and all(isinstance(size, int) and size > 0 for size in block)
    ):
        raise RunError(
            f"model: config.json has weight_block_size {str(block)[:60]}, expected two sizes"
        )
    name = dtype_name(config) or "bfloat16"
    if name not in _DTYPES:
        raise RunError(
            f"model: config.json has dtype {name[:60]!r}, expected one of {', '.join(_DTYPES)}"
        )
    return BlockFp8((block[0], block[1]), name)


def _method(found: Mapping[str, Any]) -> Any:
    """Return ``quant_method``, or what leaves it out."""
    if "quant_method" not in found and "quant_algo" in found:
        return "modelopt"
    if "quant_method" not in found and {"group_size", "bits"} <= found.keys():
        return "mlx"
    return found.get("quant_method")


def _unreadable(kind: str) -> RunError:
    return RunError(
        f"model: config.json says that the weights are quantised ({kind}); of quantised "
        "weights only fp8 e4m3 in blocks can be read (quant_method fp8 with a "
        "weight_block_size): take the folder of the same model that is not quantised"
    )


def by_names(names: Collection[str]) -> str | None:
    """Return what quantised a folder that holds tensors of these ``names``, and one; or None."""
    for name in sorted(names):
        for end, method in _ENDS.items():
            if name.endswith(end):
                return f"{name}, which {method} makes"
    return None


def grid(shape: tuple[int, ...], block: Block) -> tuple[int, int]:
    """Return the number of blocks of a matrix: down and across."""
    rows, columns = shape
    return -(-rows // block[0]), -(-columns // block[1])


def scale_of(name: str, names: Collection[str]) -> str | None:
    """Return the name of ``name``'s scales; None if the checkpoint, with ``names``, has none."""
    scale = name + SCALE
    return scale if scale in names else None


def is_scale(name: str, names: Collection[str]) -> bool:
    """Say whether ``name`` holds the scales of another of ``names``."""
    return name.endswith(SCALE) and name.removesuffix(SCALE) in names
