"""Load batches with NVIDIA DALI: another process reads and packs, DALI copies to the device.

One DALI iteration is one step. Rows are the wrong piece: their number differs from step to step,
so which step iteration i belongs to could not be said without planning all steps before it. A
step's rows go end to end (``flat_batch``), and iteration i is the batch at position
start + i x samples: DALI's worker needs no state, and asks no other.

What DALI has over the plain loader: the trainer's interpreter neither reads nor packs (it has
kernels to launch), and copies leave pinned buffers on DALI's own stream. On a machine without a
GPU it serves CPU tensors; with one it was never run.

The only file that imports ``nvidia.dali``.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import traceback
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from nvidia.dali import Pipeline, fn, types
from nvidia.dali.plugin.pytorch import DALIGenericIterator

from engine.data.batches import Batch, BatchReader
from engine.data.flat_batch import FIELDS, flatten, unflatten
from engine.errors import RunError

_OUTLINE, _ERROR = "outline", "error"
_OUTPUTS = {**FIELDS, _OUTLINE: np.int64, _ERROR: np.uint8}
"""What the worker hands over for each step; ``error`` is a pickled exception, or empty."""


class DaliLoader(AbstractContextManager["DaliLoader"]):
    """Implements :class:`engine.data.loader.Loader`.

    Besides the ``ahead`` batches two are in DALI's hands.
    """

    def __init__(
        self, reader: BatchReader, position: int, device: torch.device, ahead: int
    ) -> None:
        pipeline = _pipeline(_Steps(reader, position), device, ahead)
        self._iterator: Any = DALIGenericIterator([pipeline], [*_OUTPUTS], dynamic_shape=True)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        try:
            (output,) = next(self._iterator)
        except RuntimeError as error:  # nothing of the source's: those errors are data
            raise RunError(f"loading.loader: DALI cannot go on: {error}") from error
        found = {name: value[0] for name, value in output.items()}  # a batch of one step each
        if len(found[_ERROR]):
            raise pickle.loads(found[_ERROR].numpy().tobytes())  # noqa: S301 - from our own worker
        return unflatten(found, found[_OUTLINE].tolist())

    def close(self) -> None:
        """See :class:`engine.data.loader.Loader`."""
        self._iterator = iter(())  # DALI ends its process when nothing refers to the pipeline

    def __exit__(self, *_: object) -> None:
        self.close()


class _Steps:
    """DALI's source, called in the worker process: iteration -> the step's flat arrays."""

    def __init__(self, reader: BatchReader, start: int) -> None:
        self._reader = reader
        self._start = start

    def __call__(self, info: types.SampleInfo) -> tuple[npt.NDArray[Any], ...]:
        _die_with_parent()
        position = self._start + info.iteration * self._reader.samples
        try:
            arrays, outline = flatten(self._reader.read(position))
            error = b""
        except Exception as raised:
            # DALI would make a RuntimeError of it, and raise it before its batch is due.
            raised.add_note(f"in DALI's worker process:\n{traceback.format_exc()}")
            arrays, outline = dict.fromkeys(FIELDS, np.zeros(0)), np.zeros(0, np.int64)
            error = pickle.dumps(raised)
        values = (*arrays.values(), outline, np.frombuffer(error, np.uint8))
        return tuple(map(np.ndarray.astype, values, _OUTPUTS.values()))


def _pipeline(steps: _Steps, device: torch.device, ahead: int) -> Pipeline:
    on_gpu = device.type == "cuda"
    pipeline = Pipeline(
        batch_size=1,
        num_threads=1,
        device_id=device.index if on_gpu else None,
        prefetch_queue_depth=2,  # one batch is being used, one is on its way to the device
        py_num_workers=1,
        py_start_method="spawn",  # a fork would inherit locks of CUDA and of other threads
    )
    with pipeline:
        outputs = fn.external_source(
            steps,
            num_outputs=len(_OUTPUTS),
            batch=False,
            parallel=True,
            prefetch_queue_depth=ahead,
            dtype=[types.to_dali_type(kind) for kind in _OUTPUTS.values()],
            ndim=1,
        )
        named = zip(_OUTPUTS, outputs, strict=True)
        pipeline.set_outputs(*(o.gpu() if on_gpu and name in FIELDS else o for name, o in named))
    return pipeline


@cache
def _die_with_parent() -> None:
    """In the worker: end when the trainer does; DALI would wait for ever for a killed one."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
