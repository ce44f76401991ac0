"""Read and write Hugging Face model folders: ``config.json`` and safetensors files."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.errors import RunError
from engine.models.config_json import with_dtype_name
from engine.platform.files import sync
from engine.weights import block_fp8, quantisation
from engine.weights.stored_folder import INDEX, WHOLE, StoredFolder

_TRAVEL = (".json", ".jinja", ".model", ".tiktoken", ".txt", ".py")
"""Ends of names of what goes with weights: config, tokenizer, chat template, the makers' code."""
_LICENSES = ("LICENSE", "NOTICE", "USE_POLICY")
_STAY = (".index.json", "manifest.json", "metadata.json", "run.json", "conversion.json")
_PROSE = "README"


class HuggingFaceFolder(StoredFolder):
    """A model folder opened for reading; tensors are read one at a time, and of fused ones a part.

    Block-FP8 weights (``engine.weights.block_fp8``) are dequantised on the way: whoever reads sees
    plain tensors, and none of their scales.

    Raises:
        RunError: a file is missing or unreadable; the message names it.
    """

    def tensor(self, name: str) -> Tensor:
        """Return ``name`` on the CPU: in the file's dtype; dequantised, in that of config.json."""
        if name not in self.parts:
            raise RunError(f"model: {self.path} has no tensor {name}")
        part = self.parts[name]
        stored = self.read_stored(part.name, part.place)
        scales = quantisation.scale_of(part.name, self.stored) if self.quantised else None
        if self.quantised is None or scales is None:
            if stored.dtype == block_fp8.FP8:
                raise RunError(f"model: {self.path} has {name} in FP8 and no scales for it")
            return stored
        try:
            whole = block_fp8.dequantise(stored, self.read_stored(scales), self.quantised.block)
        except ValueError as error:
            raise RunError(f"model: {self.path}: {name} {error}") from None
        dtype: torch.dtype = getattr(torch, self.quantised.dtype)
        return whole.to(dtype)

    def read_stored(self, name: str, place: tuple[int | slice, ...] = ()) -> Tensor:
        """Return one of :attr:`stored`, or what is at ``place`` in it, on the CPU, as in the file.

        Raises:
            RunError: the file cannot be read.
        """
        file = self.stored[name]
        try:
            with safe_open(file, framework="pt") as tensors:
                tensor: Tensor
                tensor = tensors.get_slice(name)[place] if place else tensors.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise RunError(f"model: {file} cannot be read as safetensors: {error}") from None
        return tensor.contiguous()


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
    return with_dtype_name(config, str(dtype).removeprefix("torch."))


def plain_config(
    config: Mapping[str, Any], tensors: Iterable[tuple[torch.dtype, int]]
) -> dict[str, Any]:
    """Return ``config`` for tensors that are stored as they are, whatever it said before.

    Args:
        config: contents of ``config.json``; its ``quantization_config`` is left out.
        tensors: as for :func:`main_dtype`, whose answer becomes the dtype in it.
    """
    plain = {key: value for key, value in config.items() if key != quantisation.KEY}
    return with_dtype(plain, main_dtype(tensors))


def shard_name(number: int, shards: int) -> str:
    """Return the file name of a shard, counted from 1; an only one is named as a whole model."""
    return WHOLE if shards == 1 else f"model-{number:05d}-of-{shards:05d}.safetensors"


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
