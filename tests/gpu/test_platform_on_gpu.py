"""What ``accelerator.prepare()`` makes of a process with a GPU. A fresh one: it comes first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine.platform import accelerator

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.skipif(
        not accelerator.has_transformer_engine(), reason="Transformer Engine cannot be imported"
    ),
]

PROGRAM = """
import json, os
from engine.platform import accelerator
accelerator.prepare()
import torch
from engine.platform.kernels import kernels
held = torch.ones(1 << 26, device="cuda")
mapped = {line.split()[-1] for line in open("/proc/self/maps") if "libcudnn_" in line}
print(json.dumps({
    "kernels": kernels(),
    "expandable": [segment["is_expandable"] for segment in torch.cuda.memory_snapshot()],
    "cudnn": sorted({os.path.dirname(path) for path in mapped}),
}))
"""


def test_a_process_is_made_ready() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", str(Path.cwd()))},
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["expandable"] and all(found["expandable"])
    assert len(found["cudnn"]) == 1, found["cudnn"]
    serving = found["kernels"]
    assert serving["linear"] == serving["attention"] == "Transformer Engine"
    assert serving["optimizer"] == "Transformer Engine FusedAdam"
    assert serving["gradient accumulation"] == "Transformer Engine, in the product"
