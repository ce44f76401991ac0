"""A Hugging Face model folder, read and written: ``config.json`` and safetensors files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from engine.errors import RunError
from engine.models import block_fp8

COMPANIONS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
"""Files that travel with the weights, where they exist."""

INDEX = "model.safetensors.index.json"
"""Names the file of each tensor, where there are several."""


class HuggingFaceFolder:
    """A model folder opened for reading; tensors are read one at a time.

    Block-FP8 weights (``engine.models.block_fp8``) are dequantised on the way: whoever reads sees
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
        except json.JSONDecodeError as error:
            raise RunError(f"model: {file} is not valid JSON: {error}") from None
        return contents

    @cached_property
    def files(self) -> dict[str, Path]:
        """Tensor name -> the safetensors file that holds it; scales belong to their weights."""
        if self.quantised is None:
            return self.stored
        names = self.stored.keys()
        return {k: file for k, file in self.stored.items() if not block_fp8.is_scale(k, names)}

    @cached_property
    def quantised(self) -> block_fp8.BlockFp8 | None:
        """How the weights are quantised; None where they are not."""
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
        """The tensor ``name`` on the CPU: in the file's dtype, dequantised in ``torch_dtype``."""
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
        """One of :attr:`stored`, on the CPU, as it is in the file."""
        with self._open(self.stored[name]) as tensors:
            tensor: Tensor = tensors.get_tensor(name)
        return tensor

    def _open(self, file: Path) -> Any:
        try:
            return safe_open(file, framework="pt")
        except (SafetensorError, OSError) as error:
            raise RunError(f"model: {file} cannot be read as safetensors: {error}") from None


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor name -> file name, as an index file says; RunError where it is malformed."""

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
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"model: {index} is no index of safetensors files: {error}") from None
    for file in sorted(names):
        if file.name != str(file):  # it would lead out of the folder
            raise RunError(f"model: {index} names the file {file}, which is not in its folder")
    return weight_map


def write_folder(path: Path, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Write a model folder at ``path``: one safetensors file and ``source``'s companion files.

    A ``quantization_config`` stays behind: these tensors are plain.

    The folder appears whole or not at all: it is written beside its place and renamed.
    """
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for name in COMPANIONS:
            if (source / name).is_file():
                shutil.copyfile(source / name, partial / name)
        _say_that_nothing_is_quantised(partial / "config.json")
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, partial / "model.safetensors", metadata={"format": "pt"})
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise RunError(f"weights cannot be written to {path}: {error}") from None
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)


def _say_that_nothing_is_quantised(file: Path) -> None:
    config = json.loads(file.read_text())
    if config.pop("quantization_config", None):
        file.write_text(json.dumps(config, indent=2) + "\n")
