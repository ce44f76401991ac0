"""The benchmark of conversion: a model four times the limit is converted within the limit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT = 248  # MB


@pytest.mark.slow
def test_a_model_of_about_four_times_the_limit_is_converted_within_it(tmp_path: Path):
    file = tmp_path / "results.json"
    sizes = {"--gigabytes": 0.18, "--repeats": 1, "--memory": LIMIT, "--file-megabytes": 32}
    arguments = [str(word) for pair in {**sizes, "--json": file}.items() for word in pair]
    command = [sys.executable, "-m", "tools.benchmarks.conversion", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert found["memory"]["model"] > 3.5 * LIMIT  # whole layers, so a little less
    assert found["memory"]["largest"] < found["memory"]["needed"] < LIMIT
    assert min(found["speeds"].values()) > 0
