"""Every family computes what transformers computes: logits, and the gradient of every weight.

Ours sees all samples packed into one row, transformers one sample at a time.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from small_models import MODELS

HERE = Path(__file__).parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found():
    program = HERE / "programs" / "against_transformers.py"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = subprocess.run(
        [sys.executable, program, str(port)],
        env={**os.environ, "PYTHONPATH": f"{HERE.parents[1]}{os.pathsep}{HERE}"},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("model", MODELS)
def test_logits_of_a_packed_row_equal_each_samples_own(found, model):
    assert found[model]["spread"] > 0.5  # a constant would be easy to meet
    assert found[model]["logits"] < 1e-4


@pytest.mark.parametrize("model", MODELS)
def test_every_gradient_equals_theirs(found, model):
    distances, sizes = found[model]["gradients"], found[model]["sizes"]
    idle = [name for name, size in sizes.items() if size == 0 and ".experts." not in name]
    assert not idle and max(sizes.values()) > 0.1
    assert {name: far for name, far in distances.items() if not far < 1e-5} == {}


@pytest.mark.parametrize("model", MODELS)
def test_a_checkpoint_comes_back_bit_for_bit_under_the_same_names(found, model):
    for difference in ("not in ours", "not in theirs", "changed"):
        assert found[model][difference] == []
