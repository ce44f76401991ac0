"""A Hugging Face folder: safetensors shards, their index, config and tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.models.weight_rules import TensorMap
from engine.weights.hugging_face import INDEX
from tools.convert.plan import PlannedFile, groups
from tools.convert.precision import Precision
from tools.convert.safetensors_file import SafetensorsWriter
from tools.convert.sources import Source
from tools.convert.targets import Tensors, copy_companions, write_text


class HuggingFaceTarget:
    """See :class:`tools.convert.targets.Target`."""

    def __init__(self, source: Source, precision: Precision, file_bytes: int) -> None:
        """Args:
        file_bytes: a shard holds no more than this, unless a tensor is larger.
        """
        self._source, self._precision = source, precision
        self.options = {"format": "hugging_face", "dtype": precision.name}
        maps = sorted(source.maps.values(), key=lambda m: _natural(m.names[0]))
        sized = ((m, sum(part.bytes for part in self._described(m).values())) for m in maps)
        shards = groups(sized, file_bytes)
        self.planned = [
            PlannedFile(_shard_name(number, len(shards)), shard, size)
            for number, (shard, size) in enumerate(shards, start=1)
        ]

    def prepare(self, tensor_map: TensorMap, parts: Sequence[Tensor]) -> dict[str, Tensor]:
        """See :class:`Target`."""
        return self._precision.apply(tensor_map.names, parts)

    def write(self, file: Path, planned: PlannedFile, tensors: Iterable[Tensors]) -> dict[str, Any]:
        """See :class:`Target`."""
        described = {n: d for m in planned.maps for n, d in self._described(m).items()}
        with SafetensorsWriter(file, described) as writer:
            for _, named in tensors:
                for name, tensor in named.items():
                    writer.put(name, tensor)
            writer.finish()
        sizes = sum(tensor.bytes for tensor in described.values())
        return {"tensors": list(described), "bytes": sizes}

    def read_back(
        self, file: Path, planned: PlannedFile, written: dict[str, Any]
    ) -> Iterator[Tensors]:
        """See :class:`Target`."""
        for tensor_map in planned.maps:
            try:
                # Opened anew for each: what was mapped stays in memory while the file is open.
                with safe_open(file, framework="pt") as held:
                    named = {name: held.get_tensor(name) for name in self._described(tensor_map)}
            except SafetensorError as error:
                raise ValueError(f"{file.name}: {error}") from None
            yield tensor_map, named

    def complete(self, folder: Path, written: Mapping[str, dict[str, Any]]) -> None:
        """See :class:`Target`."""
        source = self._source.companions
        copy_companions(source, folder, self._precision.config_of(self._source))
        if len(written) > 1:
            weight_map = {name: file for file, of in written.items() for name in of["tensors"]}
            size = sum(of["bytes"] for of in written.values())
            index = {
                "metadata": {"total_size": size},
                "weight_map": dict(sorted(weight_map.items())),
            }
            write_text(folder / INDEX, json.dumps(index, indent=2) + "\n")

    def _described(self, tensor_map: TensorMap) -> Any:
        return self._precision.describe(tensor_map.names, self._source.describe(tensor_map))


def _shard_name(number: int, shards: int) -> str:
    return "model.safetensors" if shards == 1 else f"model-{number:05d}-of-{shards:05d}.safetensors"


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts layer 10 behind layer 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
