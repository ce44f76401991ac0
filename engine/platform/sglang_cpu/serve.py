"""Start SGLang's own server on the CPU: ``python -m engine.platform.sglang_cpu.serve <flags>``.

The server is the unmodified package. The stand-ins of ``imports`` let it be imported; the hooks of
``plugin`` make it fast.
"""

from __future__ import annotations

import os
import sys

from engine.platform.sglang_cpu import imports, plugin

# At the top level: a process that SGLang spawns imports this module before anything else.
imports.install()


def main() -> None:
    """Serve until stopped; the steps are those of ``sglang.launch_server``.

    Raises:
        RuntimeError: our attention backend is asked for, but SGLang did not load the plug-in.
    """
    from sglang.launch_server import run_server
    from sglang.srt.plugins import load_plugins
    from sglang.srt.server_args import prepare_server_args
    from sglang.srt.utils import kill_process_tree

    load_plugins()
    if plugin.ATTENTION_BACKEND in sys.argv:
        plugin.require_registered()
    server_args = prepare_server_args(sys.argv[1:])
    try:
        run_server(server_args)
    finally:
        kill_process_tree(os.getpid(), include_parent=False)


if __name__ == "__main__":
    main()
