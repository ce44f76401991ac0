"""Read and write Hugging Face model folders: ``config.json`` and safetensors files."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.errors import RunError
from engine.platform.files import sync
from engine.weights import block_fp8

INDEX = "model.safetensors.index.json"
"""Names the file of each tensor, where there are several."""

_TRAVEL = (".json", ".jinja", ".model", ".tiktoken", ".txt", ".py")
"""Ends of names of what goes with weights: config, tokenizer, chat template, the makers' code."""
_LICENSES = ("LICENSE", "NOTICE", "USE_POLICY")
_STAY = (".index.json", "manifest.json", "metadata.json", "run.json", "conversion.json")
_PROSE = "README"

COMPUTED = ".rotary_emb.inv_freq"
"""End of the names of buffers that old checkpoints hold: they follow from config.json."""


class HuggingFaceFolder:
    """A model folder opened for reading; tensors are read one at a time.

    Block-FP8 weights (``engine.weights.block_fp8``) are dequantised on the way: whoever reads sees
    plain tensors, and none of their scales.

    Raises:
        RunError: a file is missing or unreadable; the message names it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / "config.json").is_file():
            raise RunError(f"model: {path} is no Hugging Face folder: it has no config.json")

    @cached_property
    def config(self) -> dict[str, Any]:
        """The contents of ``config.json``."""
        file = self.path / "config.json"
        try:
            contents: dict[str, Any] = json.loads(file.read_text())
        except OSError as error:
            raise RunError(f"model: {file} cannot be read: {error}") from None
        except ValueError as error:  # no UTF-8 either
            raise RunError(f"model: {file} is no valid JSON: {error}") from None
        if not isinstance(contents, dict):
            raise RunError(f"model: {file} is no JSON object")
        return contents

    @property
    def names(self) -> set[str] | None:
        """Names of the tensors in :attr:`files`; None for a folder that has no weights yet."""
        weights = (INDEX, "model.safetensors")
        there = any((self.path / name).is_file() for name in weights)
        return set(self.files) if there else None

    @cached_property
    def files(self) -> dict[str, Path]:
        """Tensor name -> the safetensors file that holds it.

        Scales belong to their weights, and buffers that are computed anew do not count.
        """
        plain = {k: file for k, file in self.stored.items() if not k.endswith(COMPUTED)}
        if self.quantised is None:
            return plain
        return {k: file for k, file in plain.items() if not block_fp8.is_scale(k, self.stored)}

    @cached_property
    def quantised(self) -> block_fp8.BlockFp8 | None:
        """The quantisation of the weights; None where they are not quantised."""
        return block_fp8.described(self.config)

    @cached_property
    def stored(self) -> dict[str, Path]:
        """As :attr:`files`, with the scales of quantised weights as tensors of their own."""
        index = self.path / INDEX
        if index.is_file():
            return {name: self.path / file for name, file in _weight_map(index).items()}
        single = self.path / "model.safetensors"
        if not single.is_file():
            shards = sorted(self.path.glob("model-*.safetensors"))
            found = f"; its {len(shards)} shards need that index" if shards else ""
            raise RunError(f"model: {self.path} holds neither {single.name} nor {INDEX}{found}")
        with self._open(single) as tensors:
            return dict.fromkeys(tensors.keys(), single)

    def check_shards(self) -> None:
        """Compare the index with the shards: each tensor is in the file named for it, only there.

        Reads headers, no tensors.

        Raises:
            RunError: a shard is missing, damaged or cut off, lacks a tensor, or holds one that the
                index does not place there; or a shard belongs to no index.
        """
        expected: dict[Path, set[str]] = {}
        for name, file in self.stored.items():
            expected.setdefault(file, set()).add(name)
        for file, names in sorted(expected.items()):
            with self._open(file) as tensors:
                held = set(tensors.keys())
            for name in sorted(names - held):
                raise RunError(f"model: {file} has no tensor {name}, which {INDEX} places there")
            for name in sorted(held - names):
                other = self.stored.get(name)
                where = f"places it in {other.name}" if other else "does not name it"
                raise RunError(f"model: {file} holds {name}, but {INDEX} {where}")
        if stray := sorted(set(self.path.glob("model*.safetensors")) - expected.keys()):
            raise RunError(f"model: {stray[0]} lies among the shards, but {INDEX} does not name it")

    def tensor(self, name: str) -> Tensor:
        """Return ``name`` on the CPU: in the file's dtype; dequantised ones in ``torch_dtype``."""
        if name not in self.files:
            raise RunError(f"model: {self.path} has no tensor {name}")
        stored = self.read_stored(name)
        scales = block_fp8.scale_of(name, self.stored) if self.quantised else None
        if self.quantised is None or scales is None:
            if stored.dtype == block_fp8.FP8:
                raise RunError(f"model: {self.path} has {name} in FP8 and no scales for it")
            return stored
        try:
            whole = block_fp8.dequantise(stored, self.read_stored(scales), self.quantised.block)
        except ValueError as error:
            raise RunError(f"model: {self.path}: {name} {error}") from None
        return whole.to(self.quantised.dtype)

    def read_stored(self, name: str) -> Tensor:
        """Return one of :attr:`stored`, on the CPU, as it is in the file."""
        with self._open(self.stored[name]) as tensors:
            tensor: Tensor = tensors.get_tensor(name)
        return tensor

    def _open(self, file: Path) -> Any:
        try:
            return safe_open(file, framework="pt")
        except (SafetensorError, OSError) as error:
            raise RunError(f"model: {file} cannot be read as safetensors: {error}") from None


def _weight_map(index: Path) -> dict[str, str]:
    """Return tensor name -> file name of an index file; RunError where it is malformed."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) != len(keys):
            twice = next(key for n, key in enumerate(keys) if key in keys[:n])
            raise ValueError(f"it names {twice} twice")
        return dict(pairs)

    try:
        weight_map: dict[str, str] = json.loads(index.read_text(), object_pairs_hook=once)[
            "weight_map"
        ]
        names = {Path(file) for file in weight_map.values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"model: {index} is no index of safetensors files: {error}") from None
    for file in sorted(names):
        if file.name != str(file):  # it would lead out of the folder
            raise RunError(f"model: {index} names the file {file}, which is not in its folder")
    return weight_map


def companions(folder: Path) -> list[str]:
    """Return the names of the files that travel with a folder's weights, sorted.

    Config, tokenizer, generation config and chat template, the makers' code, the license; not the
    records of a checkpoint, and no prose, which speaks of other weights.
    """
    return sorted(file.name for file in folder.iterdir() if file.is_file() and _travels(file.name))


def _travels(name: str) -> bool:
    if name.startswith((".", _PROSE)) or name.endswith(_STAY):
        return False
    return name.endswith(_TRAVEL) or name.startswith(_LICENSES)


def main_dtype(tensors: Iterable[tuple[torch.dtype, int]]) -> torch.dtype:
    """Return the dtype that most bytes have, of pairs of dtype and bytes."""
    sizes: Counter[torch.dtype] = Counter()
    for dtype, size in tensors:
        sizes[dtype] += size
    return max(sizes, key=lambda dtype: sizes[dtype])


def with_dtype(config: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Return ``config`` for weights of ``dtype``: tools round to the dtype that it names.

    A config that names none goes on to name none.
    """
    name = str(dtype).removeprefix("torch.")
    return {k: name if k in ("dtype", "torch_dtype") else value for k, value in config.items()}


def plain_config(
    config: Mapping[str, Any], tensors: Iterable[tuple[torch.dtype, int]]
) -> dict[str, Any]:
    """Return ``config`` for tensors that are stored as they are, whatever it said before.

    Args:
        config: contents of ``config.json``; its ``quantization_config`` is left out.
        tensors: as for :func:`main_dtype`, whose answer becomes the dtype in it.
    """
    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    return with_dtype(plain, main_dtype(tensors))


def shard_name(number: int, shards: int) -> str:
    """Return the file name of a shard, counted from 1; an only one is named as a whole model."""
    return "model.safetensors" if shards == 1 else f"model-{number:05d}-of-{shards:05d}.safetensors"


def write_index(
    folder: Path, shards: Mapping[str, Iterable[str]], total_bytes: int, *, durable: bool = True
) -> None:
    """Write the index of a folder; one that has a single shard needs none.

    Args:
        shards: file name -> names of its tensors.
        total_bytes: of all tensors.
        durable: see :func:`write_text`.

    Raises:
        OSError: the file system refuses.
    """
    if len(shards) > 1:
        weight_map = {name: file for file, names in shards.items() for name in names}
        index = {
            "metadata": {"total_size": total_bytes},
            "weight_map": dict(sorted(weight_map.items())),
        }
        write_text(folder / INDEX, json.dumps(index, indent=2) + "\n", durable=durable)


def copy_companions(
    source: HuggingFaceFolder, folder: Path, config: dict[str, Any], *, durable: bool = True
) -> list[Path]:
    """Write the files that travel with the weights: config.json, tokenizer and the like.

    Args:
        folder: exists already.
        config: contents of config.json; where they are the source's, its file is copied as it is.
        durable: see :func:`write_text`.

    Raises:
        OSError: the file system refuses.
    """
    written = []
    for name in companions(source.path):
        file = folder / name
        if name == "config.json" and config != source.config:
            write_text(file, json.dumps(config, indent=2) + "\n", durable=durable)
        else:
            shutil.copyfile(source.path / name, file)
            if durable:
                sync(file)
        written.append(file)
    return written


def write_text(file: Path, text: str, *, durable: bool = True) -> None:
    """Write ``text``.

    Args:
        durable: have it on the disk when this returns: it then survives a power cut.
    """
    file.write_text(text)
    if durable:
        sync(file)
