"""Make Transformer Engine use the cuDNN that torch has loaded, whatever else is installed.

Two are common: torch's wheels bring one, and the system, or NVIDIA's image "cudnn-devel", has
another. Transformer Engine 2.11 looks on the system first (common/__init__.py), and so does the
loader for the parts of cuDNN that it names. Parts of two versions do not fit together: "undefined
symbol" on a GPU machine with both.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_MAPS = Path("/proc/self/maps")


def prefer_torchs_cudnn() -> None:
    """Load the other parts of the cuDNN that torch has loaded, so that the loader finds them first.

    Does nothing where torch has loaded none, or where that cannot be seen. Import torch before.
    """
    folder = loaded_cudnn()
    if folder is None:
        return
    os.environ["CUDNN_HOME"] = str(folder)
    for part in sorted(folder.glob("libcudnn*.so.9")):
        ctypes.CDLL(str(part), mode=ctypes.RTLD_GLOBAL)


def loaded_cudnn() -> Path | None:
    """Return the folder of the cuDNN 9 that this process has loaded first; None without one."""
    try:
        mapped = _MAPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    files = (Path(line.split(maxsplit=5)[5]) for line in mapped if "/libcudnn.so.9" in line)
    return next((file.parent for file in files), None)
