"""A Hugging Face folder without its tensors' values: config, index, names and headers; no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.errors import RunError
from engine.models.config_json import quoted
from engine.models.family import family_of
from engine.platform.git_lfs import POINTER_REMARK, is_pointer
from engine.weights import quantisation
from engine.weights.fused_experts import Part, is_fused, published_parts
from engine.weights.other_formats import held_instead
from engine.weights.safetensors_header import StoredTensor, read_header

INDEX = "model.safetensors.index.json"
"""Names the file of each tensor, where there are several."""
WHOLE = "model.safetensors"
"""The file of all tensors, where there is one."""

COMPUTED = ".rotary_emb.inv_freq"
"""End of the names of buffers that old checkpoints hold: they follow from config.json."""


class StoredFolder:
    """A model folder, looked at from outside: nothing of it is read but JSON.

    Its tensors go by the names under which the family's makers publish them, whether they are
    stored so or fused (``engine.weights.fused_experts``).

    Raises:
        RunError: a file is missing or unreadable; the message names it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / "config.json").is_file():
            held = held_instead(path)
            why = f"; {held}" if held else ""
            raise RunError(f"model: {path} is no Hugging Face folder: it has no config.json{why}")

    @cached_property
    def config(self) -> dict[str, Any]:
        """The contents of ``config.json``."""
        file = self.path / "config.json"
        try:
            contents: dict[str, Any] = json.loads(file.read_text())
        except OSError as error:
            raise RunError(f"model: {file} cannot be read: {error}") from None
        except (ValueError, RecursionError) as error:  # no UTF-8 either
            why = POINTER_REMARK if is_pointer(file) else error
            raise RunError(f"model: {file} is no valid JSON: {why}") from None
        if not isinstance(contents, dict):
            raise RunError(f"model: {file} is no JSON object")
        return contents

    @property
    def names(self) -> set[str] | None:
        """Names of the tensors in :attr:`files`; None for a folder that has no weights yet."""
        there = any((self.path / name).is_file() for name in (INDEX, WHOLE))
        return set(self.files) if there else None

    @cached_property
    def files(self) -> dict[str, Path]:
        """Tensor name -> the safetensors file that holds it.

        Scales belong to their weights, and buffers that are computed anew do not count.
        """
        return {name: self.stored[part.name] for name, part in self.parts.items()}

    @cached_property
    def parts(self) -> dict[str, Part]:
        """Tensor name -> where it lies among :attr:`stored`."""
        plain = {k: file for k, file in self.stored.items() if not k.endswith(COMPUTED)}
        if self.quantised is not None:
            is_scale = quantisation.is_scale
            plain = {k: file for k, file in plain.items() if not is_scale(k, self.stored)}
        if not any(map(is_fused, plain)):
            return {name: Part(name) for name in plain}
        return published_parts(plain, self.in_header, family_of(self.config).feed_forward)

    @cached_property
    def quantised(self) -> quantisation.BlockFp8 | None:
        """The quantisation of the weights; None where they are not quantised."""
        return quantisation.described(self.config)

    @cached_property
    def stored(self) -> dict[str, Path]:
        """As :attr:`files`, of the tensors that the files themselves hold, scales included."""
        index, single = self.path / INDEX, self.path / WHOLE
        if index.is_file():
            return {name: self.path / file for name, file in _weight_map(index).items()}
        if single.is_file():
            return dict.fromkeys(self.header(single), single)
        shards = sorted(self.path.glob("model-*.safetensors"))
        if shards:
            count = f"{len(shards)} shards need" if shards[1:] else f"shard {shards[0].name} needs"
            held: str | None = f"its {count} that index"
        else:
            held = held_instead(self.path)
        why = f"; {held}" if held else ""
        raise RunError(f"model: {self.path} holds neither {WHOLE} nor {INDEX}{why}")

    def header(self, file: Path) -> dict[str, StoredTensor]:
        """Return the tensors in one of the folder's files.

        Raises:
            RunError: it is missing, damaged or cut off.
        """
        if file not in self._headers:
            self._headers[file] = read_header(file)
        return self._headers[file]

    @cached_property
    def _headers(self) -> dict[Path, dict[str, StoredTensor]]:
        return {}

    def in_header(self, name: str) -> StoredTensor:
        """Return dtype and shape of one of :attr:`stored`.

        Raises:
            RunError: the file that the index names for it does not hold it.
        """
        file = self.stored[name]
        try:
            return self.header(file)[name]
        except KeyError:
            raise RunError(
                f"model: {file} has no tensor {name}, which {INDEX} places there"
            ) from None

    def described(self, name: str) -> StoredTensor:
        """Return dtype, as it is stored, and shape of one of :attr:`files`."""
        part = self.parts[name]
        stored = self.in_header(part.name)
        return stored if part.shape is None else StoredTensor(stored.dtype, part.shape)

    def check_shards(self) -> None:
        """Refuse a folder whose index and shards differ.

        Raises:
            RunError: see :meth:`shard_problems`; the first of them.
        """
        for problem in self.shard_problems():
            raise RunError(problem)

    def shard_problems(self) -> Iterator[str]:
        """Yield where index and shards differ: each tensor is in the file named for it, only there.

        A shard is missing, damaged or cut off, lacks a tensor, or holds one that the index does not
        place there; or a shard belongs to no index. One sentence for each shard.

        Raises:
            RunError: there is no index to compare with.
        """
        expected: dict[Path, set[str]] = {}
        for name, file in self.stored.items():
            expected.setdefault(file, set()).add(name)
        for file, names in sorted(expected.items()):
            try:
                held = set(self.header(file))
            except RunError as error:
                yield str(error)
                continue
            if lacking := sorted(names - held):
                yield f"model: {file} has no tensor {lacking[0]}, which {INDEX} places there"
            elif more := sorted(held - names):
                other = self.stored.get(more[0])
                where = f"places it in {other.name}" if other else "does not name it"
                yield f"model: {file} holds {more[0]}, but {INDEX} {where}"
        for stray in sorted(set(self.path.glob("model*.safetensors")) - expected.keys()):
            yield f"model: {stray} lies among the shards, but {INDEX} does not name it"


def _weight_map(index: Path) -> dict[str, str]:
    """Return tensor name -> file name of an index file; RunError where it is malformed."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) != len(keys):
            twice = next(key for n, key in enumerate(keys) if key in keys[:n])
            raise ValueError(f"it names {twice} twice")
        return dict(pairs)

    try:
        found = json.loads(index.read_text(), object_pairs_hook=once)
        weight_map = found.get("weight_map") if isinstance(found, dict) else None
        if not isinstance(weight_map, dict):
            raise ValueError("it has no weight_map of names and files")
        for name, file in weight_map.items():
            if not isinstance(file, str):
                raise ValueError(f"it names {quoted(file)} as the file of {name}")
        names = {Path(file) for file in weight_map.values()}
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"model: {index} is no index of safetensors files: {error}") from None
    if not weight_map:
        raise RunError(f"model: {index} names no tensor at all")
    for file in sorted(names):
        if file.name != str(file):  # it would lead out of the folder
            raise RunError(f"model: {index} names the file {file}, which is not in its folder")
        if file.suffix != ".safetensors":
            raise RunError(f"model: {index} names the file {file}, which is no safetensors file")
    return dict(weight_map)
