"""Makes Transformer Engine use the cuDNN that torch was built with, whatever else is installed.

Two are common: torch's wheels bring one, and the system, or NVIDIA's image "cudnn-devel", has
another. Transformer Engine 2.11 looks on the system first (common/__init__.py), and so does the
loader for the parts of cuDNN that it names. Parts of two versions do not fit together: "undefined
symbol" on a GPU machine with both.
"""

from __future__ import annotations

import ctypes
import os
from importlib.util import find_spec
from pathlib import Path


def prefer_torchs_cudnn() -> None:
    """Load every part of torch's cuDNN now, so that the loader looks for no other.

    Does nothing where torch came without one: there is the system's only.
    """
    folder = torchs_cudnn()
    if folder is None:
        return
    os.environ["CUDNN_HOME"] = str(folder)
    for part in sorted((folder / "lib").glob("libcudnn*.so.9")):
        ctypes.CDLL(str(part), mode=ctypes.RTLD_GLOBAL)


def torchs_cudnn() -> Path | None:
    """The folder of the cuDNN that was installed with torch's wheels."""
    try:
        found = find_spec("nvidia.cudnn")
    except ModuleNotFoundError:
        return None
    places = [] if found is None else found.submodule_search_locations or []
    return next((Path(place) for place in places if (Path(place) / "lib").is_dir()), None)
