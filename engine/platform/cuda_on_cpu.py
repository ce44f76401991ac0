"""Make ``torch.cuda``'s functions act on the CPU, so that unmodified megatron-core runs there.

megatron-core 0.16.1 writes ``device="cuda"`` and calls ``torch.cuda.*`` in about 235 places. On a
CPU everything is synchronous, so streams and events become no-ops, and the "CUDA" random state is
the CPU generator's. Never installed where a GPU is present.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._device import _device_constructors

CPU = torch.device("cpu")
_FACTORIES = [
    *("tensor", "as_tensor", "empty", "zeros", "ones", "full", "arange", "linspace", "eye"),
    *("rand", "randn", "randint", "randperm", "triu_indices"),
    *("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like"),
]
_METHODS = ["to", "new_empty", "new_zeros", "new_ones", "new_full", "new_tensor"]


def install() -> None:
    """Replace ``torch.cuda``'s functions in this process. Idempotent; does nothing with a GPU."""
    if torch.cuda.is_available() or getattr(torch.cuda, "_means_cpu", False):
        return
    torch.cuda._means_cpu = True
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    _replace_devices()
    _replace_streams_and_memory()
    _replace_random_state()
    _replace_tensor_vocabulary()


class _Stream:
    """A stream on which everything has already happened."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.cuda_stream = 0
        self.device = CPU

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *args: Any) -> None:
        """Nothing to leave."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Stream)

    __hash__ = object.__hash__

    def record_event(self, event: _Event | None = None) -> _Event:
        return event or _Event()

    def query(self) -> bool:
        return True

    def wait_stream(self, *args: Any) -> None:
        """Nothing is ever pending."""

    wait_event = synchronize = wait_stream


class _Event:
    """An event that has always been reached; it remembers when it was recorded."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.seconds = 0.0

    def record(self, *args: Any) -> None:
        self.seconds = time.perf_counter()

    def elapsed_time(self, other: _Event) -> float:
        """Return the milliseconds from this event to ``other``."""
        return (other.seconds - self.seconds) * 1e3

    def query(self) -> bool:
        return True

    def wait(self, *args: Any) -> None:
        """Nothing is ever pending."""

    synchronize = wait


def _nothing() -> Callable[..., None]:
    # A new function each time: torch._dynamo refuses one object under two names.
    return lambda *args, **kwargs: None


def _replace_devices() -> None:
    cuda: Any = torch.cuda
    cuda.current_device = lambda: CPU
    cuda.device_count = lambda: 1
    cuda.set_device = _nothing()
    cuda.get_device_capability = lambda *args: (0, 0)
    cuda.get_device_name = lambda *args: "cpu"
    cuda.device = lambda *args, **kwargs: contextlib.nullcontext()


def _replace_streams_and_memory() -> None:
    cuda: Any = torch.cuda
    stream = _Stream()
    cuda.Stream, cuda.Event = _Stream, _Event
    cuda.current_stream = lambda *args: stream
    cuda.default_stream = lambda *args: stream
    cuda.stream = lambda stream: contextlib.nullcontext()
    for name in ("synchronize", "empty_cache", "set_stream", "reset_peak_memory_stats"):
        setattr(cuda, name, _nothing())
    for name in ("memory_allocated", "memory_reserved", "max_memory_allocated"):
        setattr(cuda, name, lambda *args: 0)
    cuda.memory_stats = lambda *args: {}
    cuda.nvtx.range_push, cuda.nvtx.range_pop = _nothing(), _nothing()
    cuda.nvtx.range = lambda *args, **kwargs: contextlib.nullcontext()


def _replace_random_state() -> None:
    cuda: Any = torch.cuda
    cuda.get_rng_state = cuda.random.get_rng_state = lambda *a, **k: torch.get_rng_state()
    cuda.set_rng_state = cuda.random.set_rng_state = lambda state, *a, **k: torch.set_rng_state(
        state
    )
    cuda.manual_seed = lambda seed: torch.default_generator.manual_seed(seed)
    cuda.manual_seed_all = lambda seed: torch.default_generator.manual_seed(seed)
    cuda.default_generators = {CPU: torch.default_generator}
    # torch queues calls made before CUDA is initialised; on a CPU they would never be made.
    cuda._lazy_init = _nothing()
    cuda._lazy_call = lambda function, **kwargs: function()
    cuda.is_initialized = lambda: False


def _replace_tensor_vocabulary() -> None:
    # torch gathers once what `with torch.device(...)` acts on, and must not gather our wrappers: it
    # would ignore the device, and transformers leaves buffers uncomputed that are not on meta.
    _device_constructors()
    for name in _FACTORIES:
        setattr(torch, name, _on_cpu(getattr(torch, name)))
    tensor: Any = torch.Tensor
    for name in _METHODS:
        setattr(tensor, name, _on_cpu(getattr(tensor, name)))
    tensor.cuda = lambda self, *args, **kwargs: self
    tensor.record_stream = _nothing()
    tensor.pin_memory = lambda self, *args: self
    torch.nn.Module.cuda = lambda self, *args: self
    # megatron's optimizer compares Tensor.type() with "torch.cuda.FloatTensor".
    type_of = tensor.type

    def cuda_type(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs:
            return type_of(self, *args, **kwargs)
        return type_of(self).replace("torch.", "torch.cuda.", 1)

    tensor.type = cuda_type


def _is_cuda(device: object) -> bool:
    if isinstance(device, str):
        return device.startswith("cuda")
    return isinstance(device, torch.device) and device.type == "cuda"


def _on_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` with every CUDA device among its arguments replaced by the CPU."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if _is_cuda(kwargs.get("device")):
            kwargs["device"] = CPU
        if "pin_memory" in kwargs:
            kwargs["pin_memory"] = False
        if len(args) > 1 and _is_cuda(args[1]):  # Tensor.to("cuda", ...)
            args = (args[0], CPU, *args[2:])
        return function(*args, **kwargs)

    return wrapped
