"""Checkpoints to read, of both kinds, as Hugging Face tensors, one map at a time.

Both kinds return the Hugging Face tensors that a :class:`TensorMap` names. So converting,
comparing and measuring need to know neither format.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.errors import RunError
from engine.models.sharding import tensor_infos
from engine.models.weight_rules import TensorMap
from engine.weights.block_fp8 import FP8
from engine.weights.hugging_face import HuggingFaceFolder
from engine.weights.safetensors_file import DTYPES, Described
from engine.weights.safetensors_header import StoredTensor
from engine.weights.tensor_maps import (
    MapKey,
    check_folder,
    check_names,
    maps_of,
    maps_of_folder,
    shape_problems,
)
from tools.convert import torch_dist
from tools.convert.targets import read_record

_OF_TRAINING = ("optimizer.", "reference.")
"""Beginnings of the keys that a training checkpoint holds beside the policy's own weights."""
_DTYPE_OF = {name: dtype for dtype, name in DTYPES.items()}


class Source(Protocol):
    """A checkpoint opened for reading.

    Attributes:
        kind: ``hugging_face`` or ``megatron``.
        path: what was opened.
        companions: the folder with its config.json, tokenizer and the like.
        maps: the tensors that its family says it is made of.
    """

    kind: str
    path: Path
    companions: HuggingFaceFolder
    maps: dict[MapKey, TensorMap]

    def check(self) -> None:
        """Check that it holds every tensor of ``maps`` exactly once, and no other.

        Raises:
            RunError: it does not, and which.
        """
        ...

    def parts(self, tensor_map: TensorMap) -> list[Tensor]:
        """Return ``tensor_map``'s Hugging Face tensors on the CPU. Raises RunError as ``check``."""
        ...

    def describe(self, tensor_map: TensorMap) -> list[Described]:
        """Return dtypes and shapes of :meth:`parts`, without reading them."""
        ...

    def state(self) -> dict[str, Any]:
        """Return sizes and times of its files, which tell whether it has changed."""
        ...


class HuggingFaceSource:
    """A folder of safetensors files."""

    kind = "hugging_face"

    def __init__(self, path: Path) -> None:
        self.path, self.companions = path, HuggingFaceFolder(path)
        self.maps = maps_of_folder(self.companions)

    def check(self) -> None:
        """See :class:`Source`."""
        self.companions.check_shards()
        check_folder(self.companions, self.maps.values())
        _check_shapes(self)

    def parts(self, tensor_map: TensorMap) -> list[Tensor]:
        """See :class:`Source`."""
        return [self.companions.tensor(name) for name in tensor_map.names]

    def describe(self, tensor_map: TensorMap) -> list[Described]:
        """See :class:`Source`."""
        found = [_as_torch(self.companions.described(name)) for name in tensor_map.names]
        quantised = self.companions.quantised
        if quantised is None:
            return found
        dtype = getattr(torch, quantised.dtype)
        return [replace(d, dtype=dtype) if d.dtype == FP8 else d for d in found]

    def state(self) -> dict[str, Any]:
        """See :class:`Source`."""
        return _state(self.path, {file.name for file in self.companions.stored.values()})

    @cached_property
    def stored(self) -> dict[str, Described]:
        """Tensors in the files, by name, scales included."""
        folder = self.companions
        return {name: _as_torch(folder.in_header(name)) for name in folder.stored}


def _as_torch(stored: StoredTensor) -> Described:
    return Described(_DTYPE_OF.get(stored.dtype, torch.float64), stored.shape)


class MegatronSource:
    """A ``torch_dist`` checkpoint: a converted model, or one that a training run saved."""

    kind = "megatron"

    def __init__(self, path: Path, companions: Path) -> None:
        """Args:
        companions: the folder with config.json and tokenizer.
        """
        self.path, self.companions = path, HuggingFaceFolder(companions)
        record = read_record(path)
        names = self.companions.names if record is None else set(record["tensors"])
        self.maps = maps_of(self.companions.config, names)

    @cached_property
    def pieces(self) -> dict[str, list[torch_dist.Piece]]:
        """Pieces of the model's own tensors, by checkpoint key."""
        try:
            found = torch_dist.read_index(self.path)
        except (OSError, ValueError) as error:
            raise RunError(f"checkpoint {self.path} cannot be read: {error}") from None
        return {key: at for key, at in found.items() if not key.startswith(_OF_TRAINING)}

    def check(self) -> None:
        """See :class:`Source`."""
        check_names(self.path, {key for key, _ in self.maps}, set(self.pieces))
        experts: dict[str, int] = {}
        for key, expert in self.maps:
            if expert is not None:
                experts[key] = max(experts.get(key, 0), expert + 1)
        for key, count in experts.items():
            stored = self.pieces[key][0].shape[0]
            if stored != count:
                raise RunError(f"{self.path}: {key} has {stored} experts, config.json has {count}")
        _check_shapes(self)

    def parts(self, tensor_map: TensorMap) -> list[Tensor]:
        """See :class:`Source`."""
        try:
            whole = torch_dist.assemble(self.path, self.pieces[tensor_map.key], tensor_map.expert)
        except (OSError, ValueError) as error:
            raise RunError(f"checkpoint {self.path} cannot be read: {error}") from None
        return tensor_map.join.split(whole)

    def describe(self, tensor_map: TensorMap) -> list[Described]:
        """See :class:`Source`."""
        first = self.pieces[tensor_map.key][0]
        shape = first.shape[0 if tensor_map.expert is None else 1 :]
        dtype = getattr(torch, first.dtype)
        return [Described(dtype, part) for part in tensor_map.join.split_shape(tuple(shape))]

    def state(self) -> dict[str, Any]:
        """See :class:`Source`."""
        files = {piece.file for at in self.pieces.values() for piece in at}
        return _state(self.path, {*files, torch_dist.INDEX})


def _check_shapes(source: Source) -> None:
    """Refuse tensors of another shape than config.json asks for, before one is read."""
    shapes = {
        name: part.shape
        for tensor_map in source.maps.values()
        for name, part in zip(tensor_map.names, source.describe(tensor_map), strict=True)
    }
    infos = tensor_infos(source.companions.config)
    for problem in shape_problems(infos, source.maps, shapes.__getitem__):
        raise RunError(f"model: {source.path}: {problem}")


def _state(folder: Path, files: set[str]) -> dict[str, Any]:
    found = {name: (folder / name).stat() for name in sorted(files)}
    return {
        "path": str(folder.resolve()),
        "files": {name: [stat.st_size, stat.st_mtime_ns] for name, stat in found.items()},
    }
