"""Print as JSON whether there is a GPU, and which modules cannot be imported, with the reason.

imports.py MODULE,... MODULE,...; the second ones are asked for where there is a GPU. A process of
its own: it takes seconds, and memory of the GPU.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module

from engine.platform.cudnn import prefer_torchs_cudnn


def obstacle(module: str) -> str | None:
    """Return why ``module`` cannot be imported; None where it can."""
    try:
        import_module(module)
    except Exception as error:  # Transformer Engine also raises RuntimeError and AssertionError
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def main() -> None:
    modules, on_a_gpu = (argument.split(",") for argument in sys.argv[1:])
    gpu = obstacle("torch") is None and import_module("torch").cuda.is_available()
    if gpu:
        prefer_torchs_cudnn()
    found = {module: obstacle(module) for module in modules + (on_a_gpu if gpu else [])}
    print(json.dumps([gpu, {module: why for module, why in found.items() if why}]))


main()
