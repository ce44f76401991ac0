"""run.sh: read what is asked for, look at the machine, run the steps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import NoReturn

from results import Results
from running import last_line, run
from steps import ALL, BY_DEFAULT, GROUPS, NEEDS_A_GPU, ROOT, Step, Training, step

USAGE = f"""\
usage: bash tests/gpu/run.sh [OUT_DIR] [STEP ...]

Runs the tests marked gpu and the benchmarks, and leaves in OUT_DIR (default: artefacts/gpu-<date>):

  environment.json   device, packages, kernels, commit
  summary.json       each step: status (passed, failed, timeout, killed, skipped, no time left),
                     seconds, file of results, and why it did not pass
  smoke.json         each operation of Transformer Engine by itself
  served.json        nats between a server's log-probabilities and the trainer's, after each way of
                     passing weights
  <test>.xml         pytest's results of a file of tests (JUnit)
  <benchmark>.json   training of two cut models in BF16 and FP8 (utilisation, memory, where the
                     time goes) and with each option, log_probability, loading
  <step>.log         what each step printed

  OUT_DIR            with a slash or a leading dot: another word is a step that does not exist
  STEP               tests, bench, or single steps, so that every call is short where calls have a
                     limit; a later call into the same folder adds to its summary. Default: all of
                     these but the last, which needs sglang
                     {f"{chr(10)}{' ' * 21}".join(ALL)}

Environment variables:

  R1_VENV            the environment's folder, from this repository's root; default: .venv
                     (bash launchers/setup.sh gpu test makes it)
  R1_LIMIT           seconds for the whole call: each step gets what is left
  R1_JOBS            files of tests that run at the same time; default: 1
  R1_ROWS            rows of the benchmarks of training beside the baseline, separated by ";"
                     (tools/benchmarks/training/variants.py names them)
  R1_ROUNDS, R1_STEPS, R1_ROW_SECONDS
                     of the benchmarks of training: turns of each row, steps of a turn, and seconds
                     that no row may exceed
  R1_ARCHIVE         a .tar.gz with all of OUT_DIR, written anew after every step

A failing step does not keep the next ones from running. Exit status: 1 if a step failed or was left
no time, 2 if nothing could start. Without a GPU tests are skipped and benchmarks are tiny: a try of
this script.
"""
REQUIRED = {
    "torch": "torch",
    "pydantic": "pydantic",
    "pytest": "pytest",
    "megatron.core.package_info": "megatron-core",
}
"""Module -> package without which nothing starts."""
REQUIRED_BY_A_GPU = {"transformer_engine.pytorch": "transformer-engine"}
NEEDED_BY = {"served": "sglang"}
"""Step -> module that no other needs."""


@dataclass(frozen=True)
class Settings:
    """What the environment variables ask for."""

    limit: int | None
    jobs: int
    training: Training
    archive: Path | None


def fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def number(name: str) -> int | None:
    text = os.environ.get(name, "")
    if text and not (text.isdecimal() and int(text) > 0):
        fail(f"{name} must be a whole number of at least 1, not {text!r}")
    return int(text) if text else None


def read_settings() -> Settings:
    """Return the settings; with a bad value end, naming the first one."""
    options = []
    for name in ("ROUNDS", "STEPS", "ROW_SECONDS"):
        if value := number(f"R1_{name}"):
            options += [f"--{name.lower().replace('_', '-')}", str(value)]
    rows = [row.strip() for row in os.environ.get("R1_ROWS", "").split(";") if row.strip()]
    archive = os.environ.get("R1_ARCHIVE", "")
    if archive and not archive.endswith(".tar.gz"):
        fail(f"R1_ARCHIVE must end in .tar.gz, unlike {archive!r}")
    return Settings(
        limit=number("R1_LIMIT"),
        jobs=number("R1_JOBS") or 1,
        training=Training(rows or None, options),
        archive=Path(archive).resolve() if archive else None,
    )


def read_arguments(arguments: list[str]) -> tuple[Path, list[str]]:
    """Return the folder and the names of steps."""
    folders, names = [], []
    for argument in arguments:
        if argument in ("-h", "--help"):
            print(USAGE, end="")
            sys.exit()
        if argument in GROUPS or argument in ALL:
            names += GROUPS.get(argument, [argument])
        else:
            folders.append(argument)
    if len(folders) > 1 or not all("/" in name or name.startswith(".") for name in folders):
        print(USAGE, end="", file=sys.stderr)
        sys.exit(2)
    out = Path(*folders) if folders else ROOT / "artefacts" / f"gpu-{date.today()}"
    return out.resolve(), list(dict.fromkeys(names or BY_DEFAULT))


def look_around(names: list[str]) -> tuple[bool, dict[str, str]]:
    """Return whether there is a GPU, and why single steps cannot run; end where none can."""
    needed = {name: module for name, module in NEEDED_BY.items() if name in names}
    modules = [",".join(REQUIRED), ",".join([*REQUIRED_BY_A_GPU, *needed.values()])]
    command = [sys.executable, str(Path(__file__).with_name("imports.py")), *modules]
    asked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if asked.returncode:
        fail(f"{sys.executable} cannot say what it can import: {last_line(asked.stderr)}")
    gpu, obstacles = json.loads(asked.stdout.splitlines()[-1])
    packages = REQUIRED | REQUIRED_BY_A_GPU
    missing = [f"{packages[name]} ({why})" for name, why in obstacles.items() if name in packages]
    if missing:
        fail(f"missing: {'; '.join(missing)}. Run bash launchers/setup.sh gpu test")
    return gpu, {
        name: f"needs {module} ({obstacles[module]})"
        for name, module in needed.items()
        if module in obstacles
    }


def main() -> int:
    begun = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # runs finally blocks
    out, names = read_arguments(sys.argv[1:])
    settings = read_settings()
    gpu, obstacles = look_around(names)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(f"cannot write to {out}: {error.strerror}")
    if not gpu:
        print("no CUDA device: tests will be skipped, benchmarks are tiny", flush=True)
    results = Results(out, settings.archive)
    waiting: deque[Step] = deque()
    for name in ("environment", *names):
        asked = step(name, out, gpu, settings.training)
        if name in NEEDS_A_GPU and not gpu:
            results.add(asked, "skipped", "needs a GPU")
        elif name in obstacles:
            results.add(asked, "failed", obstacles[name])
        else:
            waiting.append(asked)
    until = float("inf") if settings.limit is None else begun + settings.limit
    run(waiting, out, results, until, settings.jobs)
    print(f"results: {out}")
    return int(results.failed)


if __name__ == "__main__":
    sys.exit(main())
