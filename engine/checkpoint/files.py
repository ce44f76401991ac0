"""Write a checkpoint's files in megatron's ``torch_dist`` format, each rank its own.

Planning is quick and a collective; it leaves each rank with the pieces that it alone will write.
Writing needs no other rank and may happen in a child process. Finishing is rank 0's: it learns
where every rank put every piece.
"""

from __future__ import annotations

import io
import json
import os
import queue
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.dist_checkpointing.core import CONFIG_FNAME, CheckpointingConfig
from megatron.core.dist_checkpointing.state_dict_utils import save_preprocess
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncRequest
from megatron.core.dist_checkpointing.strategies.common import COMMON_STATE_FNAME
from megatron.core.dist_checkpointing.strategies.filesystem_async import FileSystemWriterAsync
from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.storage import WriteResult

from engine.checkpoint.folders import RECORD
from engine.checkpoint.manifest import Digest, digest

_FORMAT = ("torch_dist", 1)


@dataclass(frozen=True)
class Written:
    """The pieces and files that one rank has written.

    Attributes:
        pieces: where each piece of each tensor lies, for the index.
        digests: of this rank's files, by name.
    """

    pieces: list[WriteResult]
    digests: dict[str, Digest]


class Planning(TorchDistSaveShardedStrategy):
    """megatron's saving strategy, stopped before it starts processes of its own.

    One per run: the structure of the state is checked at the first save only.
    """

    def __init__(self) -> None:
        # One file a rank: more only pay where one rank has many gigabytes to write.
        super().__init__(*_FORMAT, thread_count=1)
        self._checked = False

    def plan(self, state: dict[str, Any], record: dict[str, Any], folder: Path) -> Files:
        """Agree with the other ranks on who writes what into ``folder``; a collective."""
        sharded, common = save_preprocess(state, validate_access_integrity=not self._checked)
        self._checked = True
        self.async_save(sharded, folder)
        return Files(folder, self._writer, self._index, common, record)

    def _get_save_and_finalize_callbacks(self, writer: Any, planned: Any) -> AsyncRequest:
        """Keep the writer and, on rank 0, the index; called at the end of ``async_save``."""
        self._writer, (_, self._index, _) = writer, planned
        return AsyncRequest(None, (), [])


class Files:
    """The files of one checkpoint, as one rank sees them."""

    def __init__(
        self,
        folder: Path,
        writer: FileSystemWriterAsync,
        index: Metadata | None,
        common: dict[str, Any],
        record: dict[str, Any],
    ) -> None:
        self.folder = folder
        self._writer, self._index = writer, index
        self._common, self._record = common, record
        self._buckets = writer.write_buckets
        self._is_first = dist.get_rank() == 0

    def take_snapshot(self) -> None:
        """Copy to host memory what a forked child would not see unchanged."""
        staged = FileSystemWriterAsync.preload_tensors(self._buckets)  # from GPUs
        self._buckets = [
            (path, name, (objects, [(item, _private(tensor)) for item, tensor in tensors]))
            for path, name, (objects, tensors) in staged
        ]

    def write(self) -> Written:
        """Write this rank's files, have them on the disk, and read them again for their digests.

        Raises:
            OSError, RuntimeError: the file system refuses.
        """
        pieces = [piece for bucket in self._buckets for piece in self._write_bucket(bucket)]
        files = [Path(path) for path, _, _ in self._buckets]
        if self._is_first:
            files += self._write_small_files()
        return Written(pieces, {file.name: digest(file) for file in files})

    def finish(self, written: Sequence[Written]) -> dict[str, Digest]:
        """Write the index of all tensors, on rank 0 when all have written.

        Returns:
            The digests of the whole checkpoint's files, by name.
        """
        self._writer.finish(self._index, [rank.pieces for rank in written])
        index = self.folder / ".metadata"
        digests = {name: d for rank in written for name, d in rank.digests.items()}
        return {**digests, index.name: digest(index)}

    def _write_bucket(self, bucket: Any) -> list[WriteResult]:
        outcomes: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        tickets: queue.Queue[int] = queue.Queue()
        tickets.put(0)
        FileSystemWriterAsync.write_preloaded_data(
            [self._writer.transforms], 0, bucket, outcomes, tickets, use_fsync=True
        )
        _, outcome = outcomes.get_nowait()
        if isinstance(outcome, Exception):
            raise outcome
        pieces: list[WriteResult] = outcome
        return pieces

    def _write_small_files(self) -> list[Path]:
        common = io.BytesIO()
        torch.save(self._common, common)
        contents = {
            COMMON_STATE_FNAME: common.getvalue(),
            CONFIG_FNAME: json.dumps(asdict(CheckpointingConfig(*_FORMAT))).encode(),
            RECORD: (json.dumps(self._record, indent=2, allow_nan=False) + "\n").encode(),
        }
        for name, content in contents.items():
            with (self.folder / name).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        return [self.folder / name for name in contents]


def _private(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy of a tensor that a fork does not freeze; shared, or maybe page-locked."""
    return tensor.clone() if tensor.is_shared() or tensor.is_pinned() else tensor
