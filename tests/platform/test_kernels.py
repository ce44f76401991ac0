"""Fused kernels serve where they are installed: Transformer Engine's, else Apex's, else torch's.

Processes of their own, with packages that have Apex's names: megatron chooses when it is imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.platform.kernels import line, maker

PROGRAM = """
import json
from engine.platform import accelerator
accelerator.prepare()
from engine.platform.kernels import kernels
print(json.dumps(kernels(fp8="none")))
"""
APEX = {
    "apex/__init__.py": "",
    "apex/optimizers.py": (
        "import torch\n"
        "class FusedAdam(torch.optim.Optimizer): pass\n"
        "class FusedSGD(torch.optim.Optimizer): pass\n"
    ),
    "apex/multi_tensor_apply.py": "def multi_tensor_applier(*_): raise NotImplementedError\n",
    "amp_C.py": (
        "def multi_tensor_l2norm(*_): raise NotImplementedError\n"
        "def multi_tensor_scale(*_): raise NotImplementedError\n"
    ),
}


def kernels_with(packages: dict[str, str], folder: Path) -> dict[str, str]:
    for name, text in packages.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": f"{folder}:{Path.cwd()}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, str] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


@pytest.mark.slow
def test_apex_serves_the_optimizer_where_transformer_engine_is_absent(tmp_path):
    found = kernels_with(APEX, tmp_path)
    assert found["optimizer"] == "Apex FusedAdam"
    assert found["gradient norm"] == "Apex"
    assert found["linear"] == "torch"


@pytest.mark.slow
def test_torch_serves_where_both_are_absent(tmp_path):
    found = kernels_with({}, tmp_path)
    assert found["optimizer"] == "torch AdamW"
    assert found["gradient norm"] == "torch"
    assert found["attention"] == "torch scaled_dot_product_attention"


def test_who_made_a_kernel_is_told_by_its_package():
    class Kernel:
        pass

    for package, name in (
        ("transformer_engine.pytorch.optimizers", "Transformer Engine"),
        ("transformer_engine_torch", "Transformer Engine"),
        ("apex.optimizers", "Apex"),
        ("amp_C", "Apex"),
        ("torch.optim.adamw", "torch"),
        ("megatron.core.utils", "torch"),
        ("somebody_else", "somebody_else"),
    ):
        Kernel.__module__ = package
        assert maker(Kernel) == name


def test_the_log_has_one_line_with_all_of_them():
    assert line({"attention": "torch", "fp8": "none"}) == "kernels: attention: torch; fp8: none"
