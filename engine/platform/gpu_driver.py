"""Tell whether this machine has a GPU without torch, whose start takes seconds."""

from __future__ import annotations

import os
from pathlib import Path


def has_nvidia_device() -> bool:
    """Return whether NVIDIA's driver shows a GPU to this process.

    A run asks torch (``accelerator.has_gpu``): a driver that torch cannot use is no GPU to it.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and not visible.strip(" ,").removeprefix("-1"):
        return False
    return any(Path("/dev").glob("nvidia[0-9]*"))
