"""Memory of this process, as the CUDA allocator or the kernel counts it."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress
from pathlib import Path

import psutil
import torch


def start_peak(device: str) -> None:
    """Forget earlier peaks. ``device`` is ``cuda`` or ``cpu`` here and below."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    else:
        with suppress(OSError):  # a kernel that has no such reset keeps the older, larger peak
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def resident(device: str) -> int:
    """Return the bytes held now."""
    return torch.cuda.memory_allocated() if device == "cuda" else psutil.Process().memory_info().rss


def peak(device: str) -> int:
    """Return the most bytes held at a time since :func:`start_peak`."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def release(device: str) -> None:
    """Give back what is no longer used, so that what comes next starts from as little."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    else:
        ctypes.CDLL(None).malloc_trim(0)
