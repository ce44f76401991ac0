"""Kill an R1-Zero run again and again, change a setting each time, and check all it trained on.

    python -m tools.benchmarks.kills BASE [--kills 30] [--seed 1]

BASE is the folder of a finished ``recipes.base`` run. Each start goes on in the same folder with
one setting changed; a random one of its processes is killed by SIGKILL at a random moment. After
each start the store and the newest checkpoint are read: every step must have been sampled and
rewarded with the configuration that was in force when it was trained, by weights that descend from
the stored steps before it, and each prompt must have been asked once in each epoch. About 20 s a
kill on two quiet cores.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from engine.config.reader.loading import load
from engine.errors import RunError, clear_errors
from engine.monitoring.metrics_file import read_metrics
from engine.run.placement import VARIABLE
from recipes.zero import Config
from tools.benchmarks import report
from tools.benchmarks.kills.checks import problems, recorded_twice, trained_steps
from tools.benchmarks.kills.settings import CHOICES, QUICKSTART, overrides, with_one_change

PROMPTS = 23
"""Of the training set: no multiple of any step's prompts, and some epochs go by."""
ROLES = ("trainer", "sampler", "server", "launcher")
LONGEST_SECONDS = 300.0
"""Limit on one start."""


def kill_and_check(
    base: Path, folder: Path, kills: int, seed: int, say: Callable[[str], None]
) -> int:
    """Start, kill and check a run ``kills`` times, then let it end; return the steps it made.

    Args:
        base: folder of a finished ``recipes.base`` run.
        folder: an empty one for the run and its prompts.
        say: told after each start what happened.

    Raises:
        RunError: a check failed, or a start ended in another way than by its kill.
    """
    rng = random.Random(seed)
    train, run_dir = folder / "train.jsonl", folder / "run"
    lines = (base / "prompts" / "train.jsonl").read_text().splitlines()[:PROMPTS]
    train.write_text("\n".join(lines) + "\n")
    changed = {key: values[0] for key, values in CHOICES.items()}
    in_force: dict[int, Config] = {}
    key = "nothing"
    for start in range(kills + 1):
        last = start == kills
        had = trained_steps(run_dir)
        settings = overrides(changed, base, train, run_dir, had + 2 if last else 1000)
        config = load(Config, QUICKSTART, settings)
        how = _run(settings, run_dir, had, None if last else rng, folder / "output.log")
        has = trained_steps(run_dir)
        in_force |= dict.fromkeys(range(had, has), config)
        say(f"start {start}: {key} changed; {how}; steps {had} to {has}")
        if found := problems(config, in_force) + recorded_twice(run_dir):
            raise RunError(f"after start {start} ({key} changed): {'; '.join(found[:5])}")
        key, changed = with_one_change(changed, rng)
    return trained_steps(run_dir)


def _run(settings: list[str], run_dir: Path, had: int, rng: random.Random | None, log: Path) -> str:
    """Start the run, kill one of its processes if there is an ``rng``; return what happened."""
    command = [sys.executable, "-m", "launchers.local", "recipes.zero", str(QUICKSTART), *settings]
    with log.open("wb") as output:
        run = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    victim = "nobody"
    try:
        if rng is not None:
            _wait_for_a_moment(run, run_dir, had, rng)
            victim = _kill_one(run, rng) if run.poll() is None else victim
        status = run.wait(LONGEST_SECONDS)
    finally:
        run.kill()
        run.wait()
    said = log.read_text(errors="replace").strip().splitlines()
    if rng is None:
        as_expected = status == 0
    else:
        as_expected = victim == "launcher" or any("SIGKILL" in line for line in said)
    if not as_expected:
        raise RunError(f"killed: {victim}; the start ended with {status}: {said[-1]}")
    _wait_for_the_end(run_dir)
    again = sum("it is sampled again" in line for line in said)
    replayed = sum(line.endswith("replayed") for line in said)
    return f"{victim} killed; {replayed} steps replayed, {again} times stale steps sampled again"


def _wait_for_a_moment(
    run: subprocess.Popen[bytes], run_dir: Path, had: int, rng: random.Random
) -> None:
    """Wait some seconds from the start on or, mostly, from the first step that it has made."""
    started, deadline = time.time(), time.monotonic() + LONGEST_SECONDS
    if rng.random() < 0.85:
        while run.poll() is None and time.monotonic() < deadline:
            if _has_made(run_dir / "metrics.jsonl", had, started):
                break
            time.sleep(0.05)
    time.sleep(rng.uniform(0.0, 4.0))


def _has_made(lines: Path, step: int, since: float) -> bool:
    """Return whether ``step`` was made since then; a start first drops what it will do again."""
    if not lines.exists() or lines.stat().st_mtime < since:
        return False
    made = [line["step"] for line in read_metrics(lines)]
    return bool(made) and made[-1] >= step


def _kill_one(run: subprocess.Popen[bytes], rng: random.Random) -> str:
    """Kill a random process of the run; return its role."""
    role = rng.choice(ROLES)
    found = [] if role == "launcher" else _processes(run.pid, role)
    if not found:
        run.kill()
        return "launcher"
    rng.choice(found).kill()
    return role


def _processes(launcher: int, role: str) -> list[psutil.Process]:
    """Return the processes that the run's launcher has started for this role, not their helpers.

    A helper (a reward's worker, say) inherits the environment; a run goes on without it.
    """
    found: dict[int, tuple[psutil.Process, int]] = {}  # pid -> process, its parent
    for process in psutil.Process(launcher).children(recursive=True):
        with contextlib.suppress(psutil.Error, ValueError):  # it has gone, or has wiped its words
            if json.loads(process.environ().get(VARIABLE, "{}")).get("role") == role:
                found[process.pid] = (process, process.ppid())
    return [process for process, parent in found.values() if parent not in found]


def _wait_for_the_end(run_dir: Path) -> None:
    """Wait until nothing of the run is alive: its lock is free then."""
    deadline = time.monotonic() + 30
    while any(str(run_dir) in " ".join(_words(process)) for process in psutil.process_iter()):
        if time.monotonic() > deadline:
            raise RunError(f"processes of {run_dir} are left 30 s after its end")
        time.sleep(0.1)


def _words(process: psutil.Process) -> list[str]:
    try:
        words: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return words if process.pid != os.getpid() else []


def main() -> None:
    """Entry point; see the module's docstring."""
    parser = report.command_line(__doc__, "python -m tools.benchmarks.kills")
    parser.add_argument("base", type=Path, help="folder of a finished recipes.base run")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1, help="of settings, victims and moments")
    options = parser.parse_args()
    with clear_errors():
        folder = Path(tempfile.mkdtemp(prefix="kills-"))
        began = time.monotonic()
        steps = kill_and_check(
            options.base, folder, options.kills, options.seed, lambda text: print(text, flush=True)
        )
        seconds = time.monotonic() - began
        shutil.rmtree(folder)
        print(f"{options.kills} kills, {steps} steps trained, nothing wrong, {seconds:.0f} s")
        report.write(options, steps=steps, seconds=seconds)


if __name__ == "__main__":
    main()
