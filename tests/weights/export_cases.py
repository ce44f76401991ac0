"""What ranks of one layout do in the tests of this folder; import it in a pool's ranks only."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tools.benchmarks import rank_imports  # isort: skip  # noqa: F401  (readies the platform)

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.reductions import StorageWeakRef

from engine.config.layout import LayoutConfig
from engine.config.training import TrainingConfig
from engine.errors import RunError
from engine.models.build import build
from engine.weights import export, tensor_stream
from engine.weights.buckets import Bucket
from engine.weights.export import Exporter
from engine.weights.hugging_face import HuggingFaceFolder
from engine.weights.load import load
from engine.weights.push.disk import DiskPush
from engine.weights.shards import Shard, shards
from engine.weights.stream import WeightStream
from engine.weights.tensor_stream import TensorStream
from tools.benchmarks import memory

M_MMAP_THRESHOLD = -3
"""Of glibc's mallopt: blocks of more bytes are given back as soon as they are freed."""


def export_again(
    layout: LayoutConfig, source: Path, to: Path, bucket_bytes: int
) -> list[tuple[int, list[str]]]:
    """Load ``source``, export it; the buckets that came to this rank, and their names."""
    folder = HuggingFaceFolder(source)
    chunks = _built(layout, folder)
    load(chunks, folder)
    Exporter(chunks, folder, bucket_bytes).export(to)
    stream = WeightStream(chunks, folder)
    found = []
    for bucket, pairs in stream.buckets(bucket_bytes):
        names = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in pairs]
        described = stream.describe(bucket)
        assert names == [(name, d.dtype, d.shape) for name, d in described.items()]
        found.append((bucket.number, [name for name, *_ in names]))
    return found


def of_another_model(layout: LayoutConfig, source: Path, config: dict[str, Any]) -> str:
    """What a stream says of a model whose folder has other tensors."""
    chunks = build(config, layout, _training(config))
    try:
        WeightStream(chunks, HuggingFaceFolder(source))
    except ValueError as error:
        return str(error)
    return ""


def peaks(
    layout: LayoutConfig, source: Path, to: Path, bucket_bytes: int, whole: bool
) -> tuple[int, int]:
    """How far an export, or bringing everything together, raises this rank's peak; model bytes."""
    folder = HuggingFaceFolder(source)
    chunks = _built(layout, folder)
    exporter = Exporter(chunks, folder, bucket_bytes)
    stream = TensorStream(chunks)
    size = sum(tensor.bytes for tensor in stream.tensors.values())
    # Have glibc keep no memory for later: freed tensors would count.
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 64 << 10)
    dist.barrier()
    memory.release("cpu")
    before = memory.resident("cpu")
    memory.start_peak("cpu")
    if whole:
        stream.collect()
    else:
        exporter.export(to, durable=False)
    return memory.peak("cpu") - before, size


def refused(
    layout: LayoutConfig, source: Path, to: Path, bucket_bytes: int, full: int
) -> tuple[str | None, list[str], bool]:
    """Export while ``full`` is a rank whose disk is full, then again when it is not.

    Returns:
        What the first export said, what lay beside the target then, whether the second was whole.
    """
    folder = HuggingFaceFolder(source)
    chunks = _built(layout, folder)
    load(chunks, folder)
    exporter = Exporter(chunks, folder, bucket_bytes)
    exporter.export(to)
    with _full_disk() if dist.get_rank() == full else _untouched():
        said = _said_by(exporter, to)
    dist.barrier()
    left = sorted(entry.name for entry in to.parent.iterdir())
    whole = (to / "config.json").is_file()
    dist.barrier()
    exporter.export(to)
    return said, left, whole


def failing_writer(
    layout: LayoutConfig, source: Path, to: Path, bucket_bytes: int, rank: int, error: Exception
) -> tuple[str | None, list[str], int]:
    """Export while the writer of ``rank`` raises ``error`` at its first tensor.

    Returns:
        What the export said, what lay beside the target then, and the most tensors of an earlier
        bucket that were in memory when the next one came to this rank.
    """
    folder = HuggingFaceFolder(source)
    exporter = Exporter(_built(layout, folder), folder, bucket_bytes)
    alive: list[StorageWeakRef] = []
    most = 0

    def put(self: export.SafetensorsWriter, name: str, tensor: torch.Tensor) -> None:
        raise type(error)(*error.args)  # a traceback stays with its error

    stream = exporter.stream._stream
    transfer = stream._transfer

    def watched(bucket: Bucket, device: Any) -> Any:
        nonlocal most
        if bucket.rank == dist.get_rank():
            most = max(most, sum(not one.expired() for one in alive))
        whole = transfer(bucket, device)
        if whole is not None:
            alive.extend(StorageWeakRef(tensor.untyped_storage()) for tensor in whole.values())
        return whole

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "_transfer", watched)
        if dist.get_rank() == rank:
            patch.setattr(export.SafetensorsWriter, "put", put)
        said = _said_by(exporter, to)
    return said, sorted(entry.name for entry in to.parent.iterdir()), most


def said_of_pieces(layout: LayoutConfig, source: Path, moved: int) -> str:
    """What a stream says when each rank's piece of the embedding lies ``moved`` rows lower."""

    def lower(chunks: Any) -> Iterator[Shard]:
        for shard in shards(chunks):
            if "word_embeddings" in shard.key:
                rows, *others = shard.place
                rows = slice(max(0, rows.start - moved), max(0, rows.start - moved) + 44)
                shard = replace(shard, place=(rows, *others))
            yield shard

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_stream, "shards", lower)
        try:
            TensorStream(_built(layout, HuggingFaceFolder(source)))
        except ValueError as error:
            return str(error)
    return ""


def until_it_fits(layout: LayoutConfig, source: Path, disk: Path) -> list[str | None]:
    """Export to a file system that is nearly full, with more and more room; what was said."""
    folder = HuggingFaceFolder(source)
    exporter = Exporter(_built(layout, folder), folder, 64 << 10)
    said: list[str | None] = []
    room = 0
    while not said or said[-1] is not None:
        dist.barrier()
        filler = disk / "filler"
        if dist.get_rank() == 0:
            state = os.statvfs(disk)
            filler.write_bytes(bytes(state.f_bavail * state.f_frsize - room))
        dist.barrier()
        said.append(_said_by(exporter, disk / "weights"))
        there = sorted(entry.name for entry in disk.iterdir())
        dist.barrier()
        if dist.get_rank() == 0:
            filler.unlink()
        assert there == (["filler"] if said[-1] is not None else ["filler", "weights"])
        room += 128 << 10
    return said


def push_twice(layout: LayoutConfig, source: Path, room: Path) -> list[tuple[list[str], int]]:
    """Push versions 1 and 2: what servers would load, and the folders that are left."""
    from engine.weights.push import disk

    folder = HuggingFaceFolder(source)
    push = DiskPush(Exporter(_built(layout, folder), folder), room, {"a": "http://a"}, 3.0)
    asked: list[tuple[list[str], int]] = []

    def load_here(servers: dict[str, str], place: Path, version: int, limit: float) -> None:
        assert servers == {"a": "http://a"} and limit == 3.0
        assert (place / "model.safetensors").is_file()
        asked.append((sorted(entry.name for entry in place.parent.iterdir()), version))

    disk.update_from_disk, before = load_here, disk.update_from_disk
    try:
        for version in (1, 2):
            push(version)
            dist.barrier()
    finally:
        disk.update_from_disk = before
    return [*asked, (sorted(entry.name for entry in room.iterdir()), 0)]


def refused_push(layout: LayoutConfig, source: Path, room: Path, error: Exception) -> str | None:
    """Push a version that ends in ``error`` on rank 0, and meet after it; what this rank said."""
    from engine.weights.push import disk

    folder = HuggingFaceFolder(source)
    push = DiskPush(Exporter(_built(layout, folder), folder), room, {"a": "http://a"}, 3.0)

    def refuse(*_: Any) -> None:
        raise error

    said = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "update_from_disk", refuse)
        try:
            push(1)
        except RunError as refused:
            said = str(refused)
    dist.barrier()
    return said


def push_beside_what_stays(layout: LayoutConfig, source: Path, room: Path) -> list[list[str]]:
    """Push three versions; the first one's folder cannot be removed at the second push.

    Returns:
        The folders that are there after each.
    """
    from engine.weights.push import disk

    folder = HuggingFaceFolder(source)
    push = DiskPush(Exporter(_built(layout, folder), folder), room, {}, 3.0)
    rmtree = shutil.rmtree

    def busy(place: Path, **options: Any) -> None:
        if place.name == "000001":
            raise OSError(errno.ENOTEMPTY, "Directory not empty", str(place))
        rmtree(place, **options)

    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "update_from_disk", lambda *_: None)
        for version in (1, 2, 3):
            with pytest.MonkeyPatch.context() as inner:
                if version == 2:
                    inner.setattr(shutil, "rmtree", busy)
                push(version)
            dist.barrier()
            found.append(sorted(entry.name for entry in room.iterdir()))
            dist.barrier()
    return found


def _built(layout: LayoutConfig, folder: HuggingFaceFolder) -> list[torch.nn.Module]:
    return list(build(folder.config, layout, _training(folder.config)))


def _training(config: dict[str, Any]) -> TrainingConfig:
    return TrainingConfig(dtype=config["dtype"], tokens_per_microbatch=64)


def _said_by(exporter: Exporter, to: Path) -> str | None:
    try:
        exporter.export(to)
    except RunError as error:
        return str(error)
    return None


@contextmanager
def _full_disk() -> Iterator[None]:
    """Have every shard that this rank writes meet a full disk."""
    writer = export.SafetensorsWriter
    export.SafetensorsWriter = lambda _, tensors: writer(Path("/dev/full"), tensors)
    try:
        yield
    finally:
        export.SafetensorsWriter = writer


@contextmanager
def _untouched() -> Iterator[None]:
    yield
