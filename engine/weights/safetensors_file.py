"""Write a safetensors file tensor by tensor.

The library's own ``save_file`` wants all tensors of a file in memory. The format is simple enough
(https://github.com/huggingface/safetensors, "Format"): the header's length as eight bytes, little
endian; the header, JSON; the tensors' bytes one after the other. Everything is read back by the
library.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

DTYPES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float8_e4m3fn: "F8_E4M3",
}
"""The dtypes of weights, and safetensors' names for them."""


@dataclass(frozen=True)
class Described:
    """Dtype and shape of a tensor, without its values."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


class SafetensorsWriter:
    """A file of tensors whose dtypes and shapes are known beforehand, filled in any order."""

    def __init__(self, path: Path, tensors: Mapping[str, Described]) -> None:
        """Create the file, and write its header.

        Raises:
            OSError: the file system refuses.
            ValueError: a tensor is of a dtype that is not in :data:`DTYPES`.
        """
        for name, tensor in tensors.items():
            if tensor.dtype not in DTYPES:
                raise ValueError(f"{name} is {tensor.dtype}; expected one of {[*DTYPES]}")
        self._described = dict(tensors)
        self._missing = set(tensors)
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        self._begin: dict[str, int] = {}
        end = 0
        for name, tensor in tensors.items():
            self._begin[name], end = end, end + tensor.bytes
            header[name] = {
                "dtype": DTYPES[tensor.dtype],
                "shape": list(tensor.shape),
                "data_offsets": [self._begin[name], end],
            }
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._data = 8 + len(text)
        self._file = path.open("wb")
        self._file.write(struct.pack("<Q", len(text)) + text)

    def __enter__(self) -> SafetensorsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def put(self, name: str, tensor: Tensor) -> None:
        """Write the tensor called ``name``.

        Raises:
            OSError: the file system refuses.
            ValueError: it is not what was described, or was written before.
        """
        expected, found = self._described.get(name), Described(tensor.dtype, tuple(tensor.shape))
        if found != expected:
            raise ValueError(f"{name} is {found}, described as {expected}")
        if name not in self._missing:
            raise ValueError(f"{name} is written twice")
        self._missing.discard(name)
        self._file.seek(self._data + self._begin[name])
        self._file.write(bytes_of(tensor))

    def finish(self, *, durable: bool = True) -> None:
        """Check that it is complete, and hand it to the file system.

        Args:
            durable: have it on the disk when this returns: it then survives a power cut.

        Raises:
            OSError: the file system refuses.
            ValueError: a tensor was not written.
        """
        if self._missing:
            raise ValueError(f"{min(self._missing)} was not written")
        self._file.flush()
        if durable:
            os.fsync(self._file.fileno())


def bytes_of(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor on the CPU, as if contiguous; without a copy if it is."""
    flat = tensor.detach().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else memoryview(b"")
