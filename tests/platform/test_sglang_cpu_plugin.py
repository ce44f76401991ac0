"""The stand-ins and hooks of the CPU server: loud where they are misused or missing.

Each case runs in a process of its own: stand-ins stay in a process for good.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from engine.servers.command import ServerPlace, server_command

PROGRAMS = Path(__file__).parent / "programs"
KERNELS_CHECK = PROGRAMS / "kernels_check.py"


def run(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | env,
        capture_output=True,
        text=True,
        timeout=240,
    )


def python(program: str, **env: str) -> subprocess.CompletedProcess[str]:
    return run("-c", program, **env)


def test_the_plug_in_is_an_entry_point_that_sglang_finds():
    (found,) = entry_points(group="sglang.srt.plugins", name="r1_cpu_batched")
    assert found.value == "engine.platform.sglang_cpu.plugin:register"


def test_the_plug_in_does_nothing_where_sglang_runs_on_a_gpu():
    done = python(
        "import sys; from engine.platform.sglang_cpu.plugin import register; register(); "
        "assert not {'sglang', 'torch'} & set(sys.modules)",
        SGLANG_USE_CPU_ENGINE="0",
    )
    assert done.returncode == 0, done.stderr


def test_a_stand_in_can_be_subclassed_decorated_with_and_named_while_modules_are_imported(tmp_path):
    (tmp_path / "kernels.py").write_text(
        "import triton, triton.language as tl\n"
        "from torchvision.io import decode_jpeg\n"
        "from openai.types import Message\n"
        "from pydantic import BaseModel\n"
        "@triton.jit\ndef kernel(x: tl.constexpr): return x\n"
        "@triton.autotune(configs=[triton.Config({'B': 1})], key=['n'])\n"
        "def tuned(x): return 2 * x\n"
        "class Own(Message, total=False): pass\n"
        "class Body(BaseModel):\n    message: Own | None = None\n"
    )
    done = python(
        "from engine.platform.sglang_cpu import imports; imports.install(); imports.install()\n"
        "import kernels, sys\n"
        "assert kernels.tuned(3) == 6 and kernels.Body().message is None\n"
        "assert sum(type(f).__module__ == imports.__name__ for f in sys.meta_path) == 1\n",
        PYTHONPATH=f"{tmp_path}:{Path.cwd()}",
    )
    assert done.returncode == 0, done.stderr


def test_calling_a_stand_in_when_the_server_runs_is_an_error_that_names_it():
    done = python(
        "from engine.platform.sglang_cpu import imports; imports.install()\n"
        "from torchvision.io import decode_jpeg\ndecode_jpeg(b'')"
    )
    assert done.returncode == 1
    assert "torchvision.io.decode_jpeg was called, but on the CPU" in done.stderr


@pytest.mark.slow
def test_the_server_does_not_start_when_sglang_did_not_load_the_plug_in():
    done = run(
        "-m",
        "engine.platform.sglang_cpu.serve",
        "--model-path",
        "/nowhere",
        "--attention-backend",
        "cpu_batched",
        SGLANG_PLUGINS="another",
        SGLANG_USE_CPU_ENGINE="1",
    )
    assert done.returncode == 1
    assert "SGLang has not loaded the plug-in r1_cpu_batched" in done.stderr


@pytest.mark.slow
def test_attention_is_not_built_where_a_hook_did_not_take():
    done = python(
        "from engine.platform.sglang_cpu import imports, plugin; imports.install()\n"
        "plugin.register(); plugin.require_registered()\n"  # registered, but hooks never applied
        "from sglang.srt.layers.attention.attention_registry import ATTENTION_BACKENDS\n"
        "ATTENTION_BACKENDS[plugin.ATTENTION_BACKEND](None)",
        SGLANG_USE_CPU_ENGINE="1",
    )
    assert done.returncode == 1
    assert "SGLang did not apply our hook to moe_forward_native" in done.stderr


@pytest.mark.slow
def test_attention_and_experts_equal_sglangs_own_on_random_batches():
    done = run(str(KERNELS_CHECK), SGLANG_USE_CPU_ENGINE="1")
    assert done.returncode == 0, done.stderr
    differences = defaultdict(list)
    for line in done.stdout.splitlines():
        name, difference = line.split("\t")
        differences[name].append(float(difference))
    assert {name: len(found) for name, found in differences.items()} == {
        "decode narrow": 12,
        "decode spread": 12,
        "prefill": 12,
        "prefill spread": 12,
        "prefill after prefixes": 12,
        "prefill, some with prefix": 12,
        "experts": 12,
    }
    assert max(max(found) for found in differences.values()) < 5e-6


@pytest.mark.slow
def test_others_that_take_memory_meanwhile_stop_no_server_from_starting():
    place = ServerPlace("127.0.0.1:1", "127.0.0.1:2")
    command, _ = server_command(Path("/model"), place, tp=1, max_total_tokens=1, seed=1)
    fraction = command[command.index("--mem-fraction-static") + 1]
    done = run(str(PROGRAMS / "free_memory.py"), fraction, SGLANG_USE_CPU_ENGINE="1")
    assert done.stdout.splitlines()[-1:] == [str(2**30)], done.stderr
