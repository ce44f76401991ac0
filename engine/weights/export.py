"""Export a model's weights as a Hugging Face folder, several ranks writing side by side."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from engine.errors import RunError
from engine.weights.buckets import Bucket
from engine.weights.folder_swap import begin, finish, give_up, partial_of
from engine.weights.hugging_face import (
    HuggingFaceFolder,
    copy_companions,
    plain_config,
    shard_name,
    write_index,
)
from engine.weights.model_config import model_config
from engine.weights.safetensors_file import SafetensorsWriter
from engine.weights.stream import NamedTensors, WeightStream

_log = logging.getLogger(__name__)

BUCKET_BYTES = 2 << 30
"""Of a shard, unless a tensor is larger."""


class Exporter:
    """Writes a model's weights under Hugging Face names. Built and called by all ranks together.

    Each shard is a bucket of the weights' stream, written by the rank that receives it, side by
    side with the others. The most that a rank holds: see ``engine.weights.tensor_stream``.
    """

    def __init__(
        self,
        chunks: Sequence[torch.nn.Module],
        source: HuggingFaceFolder,
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        """Plan the shards.

        Args:
            chunks: the trained model's chunks on this rank.
            source: the folder it came from; config and tokenizer files are copied from there.
            bucket_bytes: see :meth:`engine.weights.stream.WeightStream.buckets`.

        Raises:
            ValueError: the model holds a tensor that no rule names, or lacks one.
        """
        self._source, self._limit = source, bucket_bytes
        self._config = model_config(chunks, source)
        self.stream = WeightStream(chunks, source)
        self._plan = self.stream.plan(bucket_bytes)

    def export(self, folder: Path, *, durable: bool = True) -> None:
        """Write the weights as they are now to ``folder``; returns on all ranks when it is whole.

        The folder appears whole or not at all, and takes the place of one that was there; a killed
        process loses neither (``engine.weights.folder_swap``). Its files are plain: a
        ``quantization_config`` stays behind, and ``config.json`` has the dtype of most bytes.

        Args:
            folder: on a file system that all ranks share.
            durable: have it on the disk when this returns: it then survives a power cut.

        Raises:
            RunError: a rank cannot write there; the same sentence on all ranks. The folder that was
                there stays.
        """
        first = dist.get_rank() == 0
        try:
            _agree(folder, _reason_against(self._begin, folder, durable) if first else None)
            _agree(folder, self._write_shards(partial_of(folder), durable))
            _agree(folder, _reason_against(finish, folder, durable) if first else None)
        except RunError:
            if first:  # no rank writes any more
                give_up(folder)
            dist.barrier()
            raise

    def _begin(self, folder: Path, durable: bool) -> None:
        """Make the folder, with everything but the shards."""
        begin(folder)
        tensors = {self._name(bucket): self.stream.describe(bucket) for bucket in self._plan}
        sizes = [(d.dtype, d.bytes) for named in tensors.values() for d in named.values()]
        config = plain_config(self._config, sizes)
        partial = partial_of(folder)
        copy_companions(self._source, partial, config, durable=durable)
        write_index(partial, tensors, sum(size for _, size in sizes), durable=durable)

    def _write_shards(self, partial: Path, durable: bool) -> str | None:
        """Write the shards that come to this rank; return why it could not, None if it could.

        After a failure it goes on to take its buckets: the others need this rank's pieces.
        """
        failure: str | None = None
        for bucket, tensors in self.stream.buckets(self._limit):
            if failure is None:
                file = partial / self._name(bucket)
                failure = _reason_against(self._write, file, bucket, tensors, durable)
            del tensors  # where it failed, with the one it had come to
        return failure

    def _write(self, file: Path, bucket: Bucket, tensors: NamedTensors, durable: bool) -> None:
        with SafetensorsWriter(file, self.stream.describe(bucket)) as writer:
            for name, tensor in tensors:
                writer.put(name, tensor)
            writer.finish(durable=durable)

    def _name(self, bucket: Bucket) -> str:
        return shard_name(bucket.number + 1, len(self._plan))


def _reason_against(action: Callable[..., None], *arguments: Any) -> str | None:
    """Do what one rank does alone; return why it failed, None if it did not.

    The error itself is let go: its traceback would keep alive what the failed action held. Where it
    is none of the file system's, it is in the log.
    """
    try:
        action(*arguments)
    except OSError as error:
        return error.strerror or str(error)
    except Exception as error:
        _log.exception("an export failed")
        return f"{type(error).__name__}: {error}"
    return None


def _agree(folder: Path, mine: str | None) -> None:
    """Wait until all ranks have done their parts.

    Args:
        mine: why this rank could not do its part; None if it has.

    Raises:
        RunError: a rank could not; the same sentence on all ranks.
    """
    reasons: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(reasons, mine)
    for rank, reason in enumerate(reasons):
        if reason is not None:
            where = f", on rank {rank}" if len(reasons) > 1 else ""
            raise RunError(f"weights cannot be written to {folder}: {reason}{where}")
