"""Interface of the loaders, which read batches ahead of their use, and their choice."""

from __future__ import annotations

from importlib.util import find_spec
from types import TracebackType
from typing import Protocol, Self

import torch

from engine.config.trainer import LoadingConfig
from engine.data.batches import Batch, BatchReader
from engine.data.plain_loader import PlainLoader
from engine.errors import RunError


class Loader(Protocol):
    """An endless iterator of batches on the device; it reads ahead until it is closed.

    An error of the source comes out of ``next`` as it was raised, when its batch is due; from then
    on the loader can only be closed.
    """

    def __iter__(self) -> Self: ...

    def __next__(self) -> Batch: ...

    def close(self) -> None:
        """Stop reading ahead; returns when the thread or process that did it has ended."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def open_loader(
    config: LoadingConfig, reader: BatchReader, position: int, device: torch.device
) -> Loader:
    """Start to load the batches from ``position`` on. Close the loader, or leave its ``with``.

    Args:
        position: 0, or ``next_position`` of the last batch that was used.
        device: where batches shall be: the CPU or a CUDA device with its index.
    Raises:
        RunError: DALI is asked for and not installed.
    """
    if config.loader == "plain":
        return PlainLoader(reader, position, device, config.prefetch)
    if find_spec("nvidia") is None or find_spec("nvidia.dali") is None:
        raise RunError(
            "loading.loader: dali needs the package nvidia-dali-cuda130, which is not installed"
            " here; install it, or set loading.loader=plain, which gives the same batches"
        )
    from engine.data.dali_loader import DaliLoader  # only here: it takes half a second to import

    return DaliLoader(reader, position, device, config.prefetch)
