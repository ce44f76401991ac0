"""Target that is a Hugging Face folder: safetensors shards, their index, config and tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.models.weight_rules import TensorMap
from engine.weights.buckets import groups
from engine.weights.hugging_face import copy_companions, shard_name, write_index
from engine.weights.safetensors_file import SafetensorsWriter
from engine.weights.tensor_maps import natural_order
from tools.convert.plan import PlannedFile
from tools.convert.precision import Precision
from tools.convert.sources import Source
from tools.convert.targets import Tensors


class HuggingFaceTarget:
    """See :class:`tools.convert.targets.Target`."""

    def __init__(self, source: Source, precision: Precision, file_bytes: int) -> None:
        """Args:
        file_bytes: a shard holds no more than this, unless a tensor is larger.
        """
        self._source, self._precision = source, precision
        self.options = {"format": "hugging_face", "dtype": precision.name}
        maps = sorted(source.maps.values(), key=lambda m: natural_order(m.names[0]))
        sized = ((m, sum(part.bytes for part in self._described(m).values())) for m in maps)
        shards = groups(sized, file_bytes)
        self.planned = [
            PlannedFile(shard_name(number, len(shards)), shard, size)
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
        shards = {file: of["tensors"] for file, of in written.items()}
        write_index(folder, shards, sum(of["bytes"] for of in written.values()))

    def _described(self, tensor_map: TensorMap) -> Any:
        return self._precision.describe(tensor_map.names, self._source.describe(tensor_map))
