"""SGLang's server on a GPU, with stand-ins for packages that it imports but a test never uses.

python gpu_server.py FLAG-OF-SGLANG ...
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from engine.platform.sglang_cpu import imports

FLAGS = (
    # Triton's attention and torch's sampling: kernels that are compiled for whatever GPU is there.
    "--attention-backend=triton",
    "--sampling-backend=pytorch",
    "--grammar-backend=none",
    "--disable-cuda-graph",
)
NOT_CARRIED = frozenset({"IPython", "soundfile", "timm", "xgrammar"})


def install() -> None:
    """Put the stand-ins in place; call before importing sglang."""
    imports.STOOD_IN = NOT_CARRIED
    imports.install()


install()  # at the top level: the processes that a server spawns import this module first

if __name__ == "__main__":
    from sglang.launch_server import run_server
    from sglang.srt.server_args import prepare_server_args
    from sglang.srt.utils import kill_process_tree

    arguments = prepare_server_args([*sys.argv[1:], *FLAGS])
    try:
        run_server(arguments)
    finally:
        kill_process_tree(os.getpid(), include_parent=False)
