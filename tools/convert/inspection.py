"""Describe a checkpoint in lines of text: family, size, dtypes, files, pieces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

from engine.weights.safetensors_file import Described
from tools.convert.sources import HuggingFaceSource, MegatronSource, Source


def lines(source: Source) -> Iterator[str]:
    """Yield the output of ``inspect``; headers and indices are read, tensors are not."""
    parameters, dtypes = 0, Counter[str]()
    largest, largest_name = 0, ""
    for tensor_map in source.maps.values():
        for name, part in zip(tensor_map.names, source.describe(tensor_map), strict=True):
            parameters += torch.Size(part.shape).numel()
            if part.bytes > largest:
                largest, largest_name = part.bytes, name
    for stored in _stored(source):
        dtypes[str(stored.dtype).removeprefix("torch.")] += stored.bytes
    config = source.companions.config
    experts = len({expert for _, expert in source.maps if expert is not None})
    yield f"{source.path}"
    yield f"  kind        {source.kind.replace('_', ' ')}"
    yield f"  family      {config['model_type']}, {config['num_hidden_layers']} layers" + (
        f", {experts} experts" if experts else ""
    )
    yield f"  parameters  {parameters:,}"
    for dtype, size in dtypes.most_common():
        yield f"  {dtype:10}  {_human(size)}"
    yield f"  largest     {largest_name}, {_human(largest)}"
    yield f"  config      {source.companions.path}"
    yield from _files(source)


def _stored(source: Source) -> Iterator[Described]:
    """Yield all tensors as they are on the disk: quantised, with their scales."""
    if isinstance(source, HuggingFaceSource):
        yield from source.stored.values()
    else:
        for tensor_map in source.maps.values():
            yield from source.describe(tensor_map)


def _files(source: Source) -> Iterator[str]:
    if isinstance(source, MegatronSource):
        pieces = Counter(piece.file for found in source.pieces.values() for piece in found)
        of = "pieces"
    else:
        pieces = Counter(file.name for file in source.companions.files.values())
        of = "tensors"
    yield f"  {len(pieces)} files"
    for name in sorted(pieces):
        yield f"    {name}  {_human(_size(source.path / name))}, {pieces[name]} {of}"


def _size(file: Path) -> int:
    return file.stat().st_size


def _human(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.4g} TB"
