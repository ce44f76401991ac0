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
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
"""Files that travel with the weights, where they exist."""


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
        if self._quantised is None:
            return self._stored
        names = self._stored.keys()
        return {k: file for k, file in self._stored.items() if not block_fp8.is_scale(k, names)}

    @cached_property
    def _quantised(self) -> block_fp8.BlockFp8 | None:
        return block_fp8.described(self.config)

    @cached_property
    def _stored(self) -> dict[str, Path]:
        index = self.path / "model.safetensors.index.json"
        if index.is_file():
            shards = json.loads(index.read_text())["weight_map"]
            return {name: self.path / file for name, file in shards.items()}
        single = self.path / "model.safetensors"
        if not single.is_file():
            raise RunError(f"model: {self.path} holds neither {single.name} nor {index.name}")
        with self._open(single) as tensors:
            return dict.fromkeys(tensors.keys(), single)

    def tensor(self, name: str) -> Tensor:
        """The tensor ``name`` on the CPU: in the file's dtype, dequantised in ``torch_dtype``."""
        if name not in self.files:
            raise RunError(f"model: {self.path} has no tensor {name}")
        stored = self._read(name)
        scales = block_fp8.scale_of(name, self._stored) if self._quantised else None
        if self._quantised is None or scales is None:
            if stored.dtype == block_fp8.FP8:
                raise RunError(f"model: {self.path} has {name} in FP8 and no scales for it")
            return stored
        try:
            whole = block_fp8.dequantise(stored, self._read(scales), self._quantised.block)
        except ValueError as error:
            raise RunError(f"model: {self.path}: {name} {error}") from None
        return whole.to(self._quantised.dtype)

    def _read(self, name: str) -> Tensor:
        with self._open(self._stored[name]) as tensors:
            tensor: Tensor = tensors.get_tensor(name)
        return tensor

    def _open(self, file: Path) -> Any:
        try:
            return safe_open(file, framework="pt")
        except (SafetensorError, OSError) as error:
            raise RunError(f"model: {file} cannot be read as safetensors: {error}") from None


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
