"""served.py without a GPU: trainer and server agree, and where they do not it is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import served
import torch


@pytest.mark.parametrize(("off", "passed"), [(0.0, True), (0.01, False), (float("nan"), False)])
def test_a_difference_beyond_the_bound_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, off: float, passed: bool
) -> None:
    async def sample(self: Any) -> list[tuple[list[int], Any]]:
        return [([1], SimpleNamespace(tokens=[2, 3], logprobs=[-1.0, -2.0]))]

    monkeypatch.setattr(served.Pair, "_sample", sample)
    trainer = SimpleNamespace(
        log_probabilities=lambda samples: torch.tensor([-1.0, -2.0], dtype=torch.float64) + off
    )
    pair = served.Pair(trainer, [], "float32", tmp_path / "served.json")
    pair.compare("as started")
    (row,) = json.loads((tmp_path / "served.json").read_text())
    assert (row["when"], row["tokens"], row["passed"]) == ("as started", 2, passed)


@pytest.mark.slow
@pytest.mark.serial
def test_trainer_and_server_agree_after_each_push(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, served.__file__, "--json", tmp_path / "served.json"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "served.json").read_text())
    assert [row["when"] for row in rows] == [
        "as started",
        "again, with kernels compiled",
        "pushed through the disk",
        "pushed by handles",
    ]
    assert all(row["passed"] and row["tokens"] > 1000 for row in rows)
    assert done.stdout.endswith("served: all equal\n")
