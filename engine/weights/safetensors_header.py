"""Read the header of a safetensors file, and see whether the file is whole; no torch.

The format (https://github.com/huggingface/safetensors, "Format"): the header's length as eight
bytes, little endian; the header, JSON; the tensors' bytes one after the other.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import RunError
from engine.platform.git_lfs import POINTER_REMARK, is_pointer

_LARGEST = 100_000_000  # bytes of a header, as in the library
_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL"), 1),
}
"""dtype -> bytes of a value; there are others, smaller than a byte."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file, without its values.

    Attributes:
        dtype: safetensors' name for it, such as ``BF16``.
        shape: sizes of its axes.
    """

    dtype: str
    shape: tuple[int, ...]


def read_header(file: Path) -> dict[str, StoredTensor]:
    """Return the tensors that ``file`` holds, by name.

    Raises:
        RunError: it cannot be read, is cut off, or no safetensors file.
    """
    try:
        return _read(file)
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
        struct.error,
    ) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RunError(f"model: {file} cannot be read as safetensors: {why}") from None


def beginning_of(file: Path, name: str, most: int) -> bytes:
    """Return the first bytes of a tensor's values, no more than ``most``.

    Args:
        file: has passed :func:`read_header`, and holds the tensor ``name``.
    """
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        begin, end = json.loads(stream.read(length))[name]["data_offsets"]
        stream.seek(8 + length + begin)
        return stream.read(min(most, end - begin))


def _read(file: Path) -> dict[str, StoredTensor]:
    if is_pointer(file):
        raise ValueError(POINTER_REMARK)
    with file.open("rb") as stream:
        start = stream.read(16)
        if len(start) < 8:
            raise ValueError(f"it has {len(start)} bytes")
        (length,) = struct.unpack("<Q", start[:8])
        size = file.stat().st_size
        if start.isascii() and start.strip()[:1] in (b"<", b"{"):
            raise ValueError(f"it is a text that begins with {start.decode().strip()!r}")
        if not 0 < length <= min(_LARGEST, size - 8):
            raise ValueError(
                f"its {size:,} bytes do not hold the header of {length:,} it begins with"
            )
        stream.seek(8)
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    end = _checked_end(header)
    if size != 8 + length + end:
        raise ValueError(f"it has {size:,} bytes, its header asks for {8 + length + end:,}")
    return {
        name: StoredTensor(str(entry["dtype"]), tuple(map(int, entry["shape"])))
        for name, entry in header.items()
    }


def _checked_end(header: dict[str, Any]) -> int:
    """Return where the last tensor ends, counted from the header's end.

    Raises:
        ValueError: a tensor has another number of bytes than its shape asks for, or they do not lie
            one behind the other.
    """
    end = 0
    for name, entry in sorted(header.items(), key=lambda one: one[1]["data_offsets"]):
        begin, behind = map(int, entry["data_offsets"])
        if begin != end:
            raise ValueError(f"{name} begins at byte {begin:,}, the tensor before ends at {end:,}")
        asked = math.prod(map(int, entry["shape"])) * _BYTES.get(entry["dtype"], 0)
        if asked != behind - begin and entry["dtype"] in _BYTES:
            raise ValueError(
                f"{name} has {behind - begin:,} bytes, {entry['dtype']} of shape {entry['shape']} "
                f"asks for {asked:,}"
            )
        end = behind
    return end
