"""Load batches in a thread of this process: it reads, packs and copies ahead."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Self

import torch

from engine.data.batches import Batch, BatchReader


class PlainLoader(AbstractContextManager["PlainLoader"]):
    """Implements :class:`engine.data.loader.Loader`; ``ahead`` batches are ready or being made."""

    def __init__(
        self, reader: BatchReader, position: int, device: torch.device, ahead: int
    ) -> None:
        self._reader = reader
        self._position = position  # of the next batch that the thread reads; only it looks here
        self._copy = _CopyBeside(device) if device.type == "cuda" else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._coming: deque[Future[tuple[Batch, Any]]] = deque()
        for _ in range(ahead):
            self._coming.append(self._thread.submit(self._produce))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        batch, copied = self._coming.popleft().result()
        self._coming.append(self._thread.submit(self._produce))
        if self._copy is not None:
            self._copy.hand_over(batch, copied)
        return batch

    def close(self) -> None:
        """See :class:`engine.data.loader.Loader`."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def __exit__(self, *_: object) -> None:
        self.close()

    def _produce(self) -> tuple[Batch, Any]:
        batch = self._reader.read(self._position)
        self._position = batch.next_position
        return (batch, None) if self._copy is None else self._copy.start(batch)


class _CopyBeside:
    """Copies to a GPU on a stream of its own, while the current stream computes."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def start(self, batch: Batch) -> tuple[Batch, torch.cuda.Event]:
        """Return the batch on the device, and when it is there; only pinned memory copies so."""
        with torch.cuda.stream(self._stream):
            rows = [row.pin_memory().to(self._device) for row in batch.rows]
            return replace(batch, rows=rows), self._stream.record_event()

    def hand_over(self, batch: Batch, copied: torch.cuda.Event) -> None:
        """Let the current stream wait for the copy, and its memory live until that is done."""
        current = torch.cuda.current_stream(self._device)
        current.wait_event(copied)
        for row in batch.rows:
            row.record_stream(current)
