"""Write and read megatron's ``torch_dist`` files in one process, tensor by tensor.

The format is torch's distributed checkpoint: files that are pieces of tensors one after the other,
each as ``torch.save`` writes it, and ``.metadata``, which says where each piece lies. A tensor that
megatron stacks over experts has the expert as its first axis.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from blake3 import blake3
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.storage import WriteResult

INDEX = ".metadata"


@dataclass(frozen=True)
class Piece:
    """Place of one piece of one tensor.

    Attributes:
        key: of the tensor; with ``shape``, of the whole (the expert axis included).
        dtype: torch's name of it, such as ``bfloat16``.
        offset, sizes: the piece's place in the whole.
        file, start, bytes: the part of a file that holds it.
    """

    key: str
    shape: tuple[int, ...]
    dtype: str
    offset: tuple[int, ...]
    sizes: tuple[int, ...]
    file: str
    start: int
    bytes: int

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Piece:
        """Return the piece that :meth:`as_json` gave as JSON values."""
        lists = ("shape", "offset", "sizes")
        fields: dict[str, Any] = {k: tuple(v) if k in lists else v for k, v in found.items()}
        return cls(**fields)

    def read(self, folder: Path) -> Tensor:
        """Return the piece's tensor. Raises ValueError where the file does not hold it."""
        with (folder / self.file).open("rb") as file:
            file.seek(self.start)
            content = io.BytesIO(file.read(self.bytes))
        try:
            tensor: Tensor = torch.load(content, map_location="cpu", weights_only=True)
        except Exception as error:  # zip, unpickling and runtime errors of many kinds
            raise ValueError(f"{self.file} holds no piece of {self.key}: {error}") from None
        if tuple(tensor.shape) != self.sizes:
            raise ValueError(
                f"{self.file} holds {self.key} {tuple(tensor.shape)}, not {self.sizes}"
            )
        return tensor


class PieceWriter:
    """One file of pieces being written; ``blake3`` is the digest of all that was written."""

    def __init__(self, path: Path) -> None:
        self._name, self._file = path.name, _Hashed(path.open("wb"))

    def __enter__(self) -> PieceWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def blake3(self) -> str:
        """Hexadecimal digest of the file so far."""
        return self._file.hash.hexdigest()

    @property
    def bytes(self) -> int:
        """Size of the file so far."""
        return self._file.written

    def append(
        self, key: str, expert: tuple[int, int] | None, whole: Tensor, cuts: Iterable[Any]
    ) -> list[Piece]:
        """Write pieces of ``whole``.

        Args:
            expert: which expert, of how many, ``whole`` belongs to.
            cuts: the slices of ``whole`` that are its pieces.

        Raises:
            OSError: the file system refuses.
        """
        number = () if expert is None else (expert[0],)
        experts = () if expert is None else (expert[1],)
        dtype = str(whole.dtype).removeprefix("torch.")
        pieces = []
        for cut in cuts:
            piece = whole[cut]
            offset = (*number, *(part.start for part in cut))
            sizes = (*(1 for _ in number), *piece.shape)
            start = self.bytes
            torch.save(_alone(piece).reshape(sizes), self._file)
            self._file.check()
            length = self.bytes - start
            shape = (*experts, *whole.shape)
            pieces.append(Piece(key, shape, dtype, offset, sizes, self._name, start, length))
        return pieces

    def finish(self) -> None:
        """Sync everything to the disk. Raises OSError when the file system refuses."""
        self._file.sync()


def _alone(piece: Tensor) -> Tensor:
    """Return ``piece`` in its own memory: ``torch.save`` writes a tensor's whole storage."""
    held = piece.untyped_storage().nbytes()
    return piece if piece.is_contiguous() and held == piece.nbytes else piece.clone()


class _Hashed(io.RawIOBase):
    """A file whose content is hashed as it is written.

    Its errors are kept for ``check``: ``torch.save`` is C++ and ends the process where a stream
    raises while its archive is closed.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.hash, self.written = file, blake3(), 0
        self._error: OSError | None = None

    def write(self, content: Any) -> int:
        length = memoryview(content).nbytes
        if self._error is None:
            try:
                self._file.write(content)
            except OSError as error:
                self._error = error
        self.hash.update(content)
        self.written += length
        return length

    def check(self) -> None:
        """Raise what ``write`` kept back."""
        if self._error is not None:
            raise self._error

    def sync(self) -> None:
        """Sync everything to the disk."""
        self.check()
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file. Errors that ``check`` has not raised are dropped."""
        try:
            self._file.close()
        except OSError:
            if self._error is None:
                raise


def write_index(folder: Path, pieces: Sequence[Piece]) -> None:
    """Write ``.metadata``. Raises OSError when the file system refuses."""
    tensors: dict[str, TensorStorageMetadata] = {}
    written = []
    for piece in pieces:
        offset, sizes = torch.Size(piece.offset), torch.Size(piece.sizes)
        whole = tensors.setdefault(
            piece.key,
            TensorStorageMetadata(
                TensorProperties(dtype=getattr(torch, piece.dtype)), torch.Size(piece.shape), []
            ),
        )
        whole.chunks.append(ChunkStorageMetadata(offset, sizes))
        stored = _StorageInfo(piece.file, piece.start, piece.bytes)
        written.append(WriteResult(MetadataIndex(piece.key, offset), piece.bytes, stored))
    FileSystemWriter(folder).finish(Metadata(tensors), [written])


def read_index(folder: Path) -> dict[str, list[Piece]]:
    """Return every tensor's pieces by key. Raises OSError or ValueError for a damaged index."""
    try:
        metadata = FileSystemReader(folder).read_metadata()
    except OSError:
        raise
    except Exception as error:  # whatever unpickling meets
        raise ValueError(f"{folder / INDEX} is damaged: {error}") from None
    try:
        return _pieces(metadata)
    except (KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{folder / INDEX} is damaged: {error}") from None


def _pieces(metadata: Metadata) -> dict[str, list[Piece]]:
    found: dict[str, list[Piece]] = {}
    for key, tensor in metadata.state_dict_metadata.items():
        if not isinstance(tensor, TensorStorageMetadata):
            continue  # what Transformer Engine keeps beside parameters, random generators
        dtype = str(tensor.properties.dtype).removeprefix("torch.")
        for chunk in tensor.chunks:
            stored = metadata.storage_data[MetadataIndex(key, chunk.offsets)]
            place = (tuple(tensor.size), dtype, tuple(chunk.offsets), tuple(chunk.sizes))
            where = (stored.relative_path, stored.offset, stored.length)
            found.setdefault(key, []).append(Piece(key, *place, *where))
    return found


def assemble(folder: Path, pieces: Sequence[Piece], expert: int | None = None) -> Tensor:
    """Return the whole tensor (of one expert, where it is stacked) from its pieces.

    Raises:
        ValueError: the pieces do not fill it exactly once, or a file does not hold its piece.
    """
    first = pieces[0]
    stacked = 0 if expert is None else 1
    shape = first.shape[stacked:]
    mine = [p for p in pieces if not stacked or p.offset[0] <= expert < p.offset[0] + p.sizes[0]]  # type: ignore[operator]
    filled = sum(torch.Size(piece.sizes[stacked:]).numel() for piece in mine)
    if filled != torch.Size(shape).numel() or len({p.offset for p in mine}) != len(mine):
        raise ValueError(f"the pieces of {first.key} do not make a whole of shape {shape}")
    if len(mine) == 1:
        return _of_expert(mine[0].read(folder), mine[0], expert)
    whole = torch.empty(shape, dtype=getattr(torch, first.dtype))
    for piece in mine:
        offsets, sizes = piece.offset[stacked:], piece.sizes[stacked:]
        place = tuple(slice(o, o + n) for o, n in zip(offsets, sizes, strict=True))
        whole[place] = _of_expert(piece.read(folder), piece, expert)
    return whole


def _of_expert(tensor: Tensor, piece: Piece, expert: int | None) -> Tensor:
    return tensor if expert is None else tensor[expert - piece.offset[0]]
