"""Checkpoints to convert from or to compare, seen alike: Hugging Face tensors, one map at a time.

Both kinds answer in the Hugging Face tensors that a :class:`TensorMap` names. So converting,
comparing and measuring need to know neither format.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.errors import RunError
from engine.models import block_fp8
from engine.models.family import family_of
from engine.models.holdings import whole_tensors
from engine.models.hugging_face import HuggingFaceFolder
from engine.models.weight_rules import TensorMap, expand
from tools.convert import torch_dist
from tools.convert.safetensors_file import DTYPES, Described

MapKey = tuple[str, int | None]
"""Checkpoint key and, for a tensor that exists once an expert, the expert."""

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
        """Prove that it holds every tensor of ``maps`` exactly once, and no other.

        Raises:
            RunError: it does not, and which.
        """
        ...

    def parts(self, tensor_map: TensorMap) -> list[Tensor]:
        """The Hugging Face tensors of ``tensor_map``, on the CPU. Raises RunError as ``check``."""
        ...

    def describe(self, tensor_map: TensorMap) -> list[Described]:
        """What :meth:`parts` will return, without reading it."""
        ...

    def state(self) -> dict[str, Any]:
        """What tells whether it has changed: size and time of its files."""
        ...


def maps_of(config: HuggingFaceFolder) -> dict[MapKey, TensorMap]:
    """All tensors of the family, each Hugging Face name in exactly one of them.

    Raises:
        RunError: the family is not known, or two of its rules use the same tensor.
    """
    try:
        maps = expand(family_of(config.config).rules(config.config))
    except KeyError as missing:
        raise RunError(f"model: {config.path / 'config.json'} lacks the key {missing}") from None
    used: set[str] = set()
    for tensor_map in maps.values():
        for name in tensor_map.names:
            if name in used:
                raise RunError(f"model: two weight rules of the family use {name}")
            used.add(name)
    return maps


class HuggingFaceSource:
    """A folder of safetensors files."""

    kind = "hugging_face"

    def __init__(self, path: Path) -> None:
        self.path, self.companions = path, HuggingFaceFolder(path)
        self.maps = maps_of(self.companions)

    def check(self) -> None:
        """See :class:`Source`."""
        self.companions.check_shards()
        stored = set(self.companions.files)
        named = {name for tensor_map in self.maps.values() for name in tensor_map.names}
        _same(self.path, named, stored)
        _check_shapes(self)

    def parts(self, tensor_map: TensorMap) -> list[Tensor]:
        """See :class:`Source`."""
        return [self.companions.tensor(name) for name in tensor_map.names]

    def describe(self, tensor_map: TensorMap) -> list[Described]:
        """See :class:`Source`."""
        return [self._described[name] for name in tensor_map.names]

    def state(self) -> dict[str, Any]:
        """See :class:`Source`."""
        return _state(self.path, {file.name for file in self.companions.stored.values()})

    @cached_property
    def _described(self) -> dict[str, Described]:
        found, quantised = {}, self.companions.quantised
        for file in sorted(set(self.companions.files.values())):
            try:
                with safe_open(file, framework="pt") as tensors:
                    for name in tensors.keys():  # noqa: SIM118  (no mapping)
                        part = tensors.get_slice(name)
                        dtype = _DTYPE_OF.get(part.get_dtype(), torch.float64)
                        if quantised is not None and dtype == block_fp8.FP8:
                            dtype = quantised.dtype  # of what ``parts`` returns
                        found[name] = Described(dtype, tuple(part.get_shape()))
            except (SafetensorError, OSError) as error:
                raise RunError(f"model: {file} cannot be read as safetensors: {error}") from None
        return found


class MegatronSource:
    """A ``torch_dist`` checkpoint: a converted model, or one that a training run saved."""

    kind = "megatron"

    def __init__(self, path: Path, companions: Path) -> None:
        """Args:
        companions: the folder with config.json and tokenizer.
        """
        self.path, self.companions = path, HuggingFaceFolder(companions)
        self.maps = maps_of(self.companions)

    @cached_property
    def pieces(self) -> dict[str, list[torch_dist.Piece]]:
        """Where the model's own tensors lie, by checkpoint key."""
        try:
            found = torch_dist.read_index(self.path)
        except (OSError, ValueError) as error:
            raise RunError(f"checkpoint {self.path} cannot be read: {error}") from None
        return {key: at for key, at in found.items() if not key.startswith(_OF_TRAINING)}

    def check(self) -> None:
        """See :class:`Source`."""
        _same(self.path, {key for key, _ in self.maps}, set(self.pieces))
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
        whole = _meta(shape, getattr(torch, first.dtype))
        return [Described(part.dtype, tuple(part.shape)) for part in tensor_map.join.split(whole)]

    def state(self) -> dict[str, Any]:
        """See :class:`Source`."""
        files = {piece.file for at in self.pieces.values() for piece in at}
        return _state(self.path, {*files, torch_dist.INDEX})


def _same(path: Path, named: set[str], stored: set[str]) -> None:
    """Refuse a checkpoint whose tensors are not those that its family names."""
    for names, problem in (
        (named - stored, "lacks {} tensors that its family needs, first {}"),
        (stored - named, "holds {} tensors that its family does not name, first {}"),
    ):
        if names:
            first = ", ".join(sorted(names)[:3])
            raise RunError(f"model: {path} {problem.format(len(names), first)}")


def _check_shapes(source: Source) -> None:
    """Refuse tensors of another shape than config.json asks for, before one is read."""
    for whole in whole_tensors(source.companions.config):
        tensor_map = source.maps[whole.key, whole.expert]
        asked = [tuple(part.shape) for part in tensor_map.join.split(_meta(whole.shape))]
        for name, part, shape in zip(
            tensor_map.names, source.describe(tensor_map), asked, strict=True
        ):
            if part.shape != shape:
                raise RunError(
                    f"model: {source.path}: {name} has shape {part.shape}; config.json asks for "
                    f"{shape}"
                )


def _meta(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor without content."""
    return torch.empty(tuple(shape), dtype=dtype, device="meta")


def _state(folder: Path, files: set[str]) -> dict[str, Any]:
    found = {name: (folder / name).stat() for name in sorted(files)}
    return {
        "path": str(folder.resolve()),
        "files": {name: [stat.st_size, stat.st_mtime_ns] for name, stat in found.items()},
    }
