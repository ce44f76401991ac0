"""The benchmark of log-probabilities: what it measures is what the codes must hold."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOKENS, VOCABULARY, HIDDEN, CHUNK = 4096, 12288, 64, 1024
FLOAT = 4
LOGITS = TOKENS * VOCABULARY * FLOAT


@pytest.mark.slow
def test_memory_is_five_times_the_logits_against_two_chunks_of_them(tmp_path: Path):
    file = tmp_path / "results.json"
    sizes = {
        "--tokens": TOKENS,
        "--vocabulary": VOCABULARY,
        "--hidden": HIDDEN,
        "--chunk-tokens": CHUNK,
        "--repeats": 1,
        "--memory-gib": 2,
        "--device": "cpu",
        "--dtype": "float32",
        "--json": file,
    }
    arguments = [str(word) for pair in sizes.items() for word in pair]
    command = [sys.executable, "-m", "tools.benchmarks.log_probability", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads(file.read_text())["results"]
    peaks = {(r["code"], r["passes"]): r["peak_bytes"] for r in results}
    assert len(peaks) == 4 and all(r["tokens_per_second"] > 0 for r in results)
    chunks = 2 * CHUNK * VOCABULARY * FLOAT
    gradients = (TOKENS + VOCABULARY) * HIDDEN * FLOAT
    slack = 16 * 2**20  # scratch space of the matrix library, and pages
    assert peaks["naive", "forward + backward"] == pytest.approx(5 * LOGITS, rel=0.05)
    assert chunks <= peaks["chunked", "forward"] <= chunks + slack
    assert chunks <= peaks["chunked", "forward + backward"] <= chunks + gradients + slack
