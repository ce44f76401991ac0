"""Import on a CPU all that a server on a GPU imports, and compile its kernels; nothing is computed.

    PYTHONPATH=.:SITES LD_LIBRARY_PATH=STUB TVM_FFI_CACHE_DIR=FOLDER \\
        python tests/gpu/bundle/check_sglang.py

STUB is driver_stub.py's. The kernels that a server of served.py would compile when it starts, ten
seconds each, are left in FOLDER. Needs nvcc; an error ends it.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # the repository

import gpu_server  # stand-ins for what is not carried
import torch
from served_model import MODEL

from engine.servers.command import ServerPlace, server_command

MODULES = (
    "sgl_kernel",
    "sglang.srt.entrypoints.http_server",
    "sglang.srt.managers.scheduler",
    "sglang.srt.model_executor.model_runner",
    "sglang.srt.layers.attention.triton_backend",
    "sglang.srt.models.qwen3_moe",
    "sglang.srt.models.deepseek_v2",
)


def pretend() -> None:
    """Let SGLang see the GPU that it will meet."""
    cuda: Any = torch.cuda
    name = "NVIDIA H100 80GB HBM3"
    found = SimpleNamespace(
        name=name, major=9, minor=0, total_memory=80 << 30, multi_processor_count=132
    )
    cuda.is_available = lambda: True
    cuda.device_count = lambda: 1
    cuda.current_device = lambda: 0
    cuda.get_device_capability = lambda *_: (9, 0)
    cuda.get_device_name = lambda *_: name
    cuda.get_device_properties = lambda *_: found


def parse_our_flags() -> None:
    """Have SGLang parse the command line of a run's server; it exits where a flag is unknown."""
    from sglang.srt.server_args import ServerArgs

    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    place = ServerPlace("127.0.0.1:1", "127.0.0.1:2", devices=(0,), memory=0.4)
    command, _ = server_command(Path("/model"), place, tp=1, max_total_tokens=1, seed=1)
    parser.parse_args([*command[3:], *gpu_server.FLAGS])  # after python -m sglang.launch_server


def compile_kernels() -> None:
    """Compile what served.py's model needs in bfloat16."""
    from sglang.kernels.ops.activation.activation import activation_module
    from sglang.kernels.ops.attention.rope import _jit_fused_rope_module
    from sglang.kernels.ops.kvcache.kvcache import _jit_kvcache_module
    from sglang.kernels.ops.layernorm import norm
    from sglang.kernels.ops.moe.moe_align import _jit_moe_align_module

    half, head = torch.bfloat16, MODEL["head_dim"]
    row = half.itemsize * head * MODEL["num_key_value_heads"]
    activation_module(half)
    _jit_fused_rope_module(True, head, half, half)
    _jit_kvcache_module(row, row)
    norm._jit_qknorm_module(head, half)
    norm._jit_rmsnorm_module(MODEL["hidden_size"], half)
    norm._jit_fused_add_rmsnorm_module(half, False)
    _jit_moe_align_module(torch.int32)


def main() -> None:
    """Print what has been imported, parsed and compiled."""
    pretend()
    gpu_server.install()
    for name in MODULES:
        import_module(name)
        print(f"{name}: imported", flush=True)
    parse_our_flags()
    print("our flags: known", flush=True)
    compile_kernels()
    print("kernels: compiled")


if __name__ == "__main__":
    main()
