"""What each step of run.sh runs, what it leaves, what it needs, and how long it may take."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TESTS = sorted(file.stem for file in (ROOT / "tests/gpu").glob("test_*_on_gpu.py"))
BENCHMARKS = ["training", "training-options", "log_probability", "loading"]
BY_DEFAULT = ["smoke", *TESTS, *BENCHMARKS]
ALL = [*BY_DEFAULT, "served"]
GROUPS = {"tests": TESTS, "bench": BENCHMARKS}
NEEDS_A_GPU = ("smoke", "served")
"""The others run without one: tests are skipped, benchmarks are tiny."""

_FP8 = ["fp8 blockwise", "fp8 tensorwise", "fp8 parameters", "fp8 delayed", "fp8 mxfp8"]
_OPTIONS = ["experts by cuBLAS", "recompute selective", "recompute full", "dispatcher allgather"]
_OPTIONS += ["overlap gradients", "overlap both", "optimizer offload"]
_QWEN3 = "qwen3_30b_a3b_12_layers_16_experts"
_DEEPSEEK_V3 = "deepseek_v3_2_layers_32_experts_32k_words"
_TRAINING = {"training": ([_QWEN3, _DEEPSEEK_V3], _FP8), "training-options": ([_QWEN3], _OPTIONS)}
"""Models and rows: what one GPU of eight has of either model with EP8."""


@dataclass(frozen=True)
class Step:
    """A program that counts as passed if it exits with 0 and leaves ``file`` in the folder."""

    name: str
    file: str
    seconds: int
    """It is stopped after so many."""
    command: list[str]


@dataclass(frozen=True)
class Training:
    """What is asked of the benchmarks of training in place of their defaults."""

    rows: list[str] | None = None
    options: list[str] = field(default_factory=list)


def step(name: str, out: Path, gpu: bool, training: Training) -> Step:
    """Return the step ``name``, which leaves its results in the folder ``out``."""
    if name in TESTS:
        return _step(name, f"{name}.xml", 1800, *_pytest(name, out / f"{name}.xml"))
    file = f"{name}.json"
    json = ["--json", str(out / file)]
    if name == "environment":
        return _step(name, file, 300, "tests/gpu/runner/environment.py", str(out / file))
    if name in NEEDS_A_GPU:
        return _step(name, file, 1800, f"tests/gpu/bundle/{name}.py", *json)
    if name in _TRAINING:
        sizes, rows = _training(name, gpu, training)
        words = ["-m", "tools.benchmarks.training", "--processes", "1", *sizes, *json]
        return _step(name, file, 3600, *words, "--rows", *rows)
    words = ["-m", f"tools.benchmarks.{name}", *_sizes(name, gpu)]
    return _step(name, file, 1800, *words, *json)


def _step(name: str, file: str, seconds: int, *words: str) -> Step:
    return Step(name, file, seconds, [sys.executable, *words])


def _pytest(name: str, file: Path) -> list[str]:
    # -v: the log names each test that ended, also where the step is stopped
    words = ["-m", "pytest", "-v", "-m", "gpu", f"tests/gpu/{name}.py"]
    return [*words, f"--junit-xml={file}", "--timeout", "900"]


def _training(name: str, gpu: bool, asked: Training) -> tuple[list[str], list[str]]:
    """Return options, and rows beside the baseline; the table says which the device cannot run."""
    models, rows = _TRAINING[name]
    sizes = "--samples 4 --median 20 --limit 64 --tokens-per-microbatch 64 --steps 1 --rounds 1"
    if gpu:
        sizes = "--profile --samples 16 --median 3000 --limit 16384 --tokens-per-microbatch 16384"
        sizes += " --model " + " ".join(f"tools/benchmarks/configs/{m}.json" for m in models)
    return sizes.split() + asked.options, rows if asked.rows is None else asked.rows


def _sizes(name: str, gpu: bool) -> list[str]:
    if name == "loading":
        tiny = "--samples 200 --steps 2 --repeats 1 --median 50 --limit 200"
        return [] if gpu else tiny.split()
    qwen3, tiny = "--hidden 2048 --vocabulary 151936", "--hidden 32 --vocabulary 128"
    return (qwen3 if gpu else f"{tiny} --tokens 64 --repeats 1").split()
