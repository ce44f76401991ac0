"""SIGKILL of a random rank at random moments, saves included: the run ends as if nothing were."""

from __future__ import annotations

import random
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from killed_trainer import start

from engine.checkpoint.folders import CheckpointFolders

REPOSITORY = Path(__file__).parents[2]
KILLS = 20
STEPS = 100


def configuration(run_dir: Path, every: int = 1) -> dict:
    stage = {"steps": STEPS // 2, "documents_per_step": 4, "optimizer": {"lr": 1e-3}}
    return {
        "seed": 1,
        "run_dir": str(run_dir),
        "model": str(REPOSITORY / "recipes" / "configs" / "quickstart" / "model.json"),
        "layout": {"processes": 2, "ep": 2},
        "training": {"dtype": "float32", "tokens_per_microbatch": 1024},
        "stages": [{"corpus": "textbook", **stage}, {"corpus": "web", **stage}],
        "gate": {"problems": 4, "min_probability": 0.0},
        "prompts": {"train": 20, "held_out": 10},
        "checkpoint": {"every": every, "keep": 2},
    }


def run_to_the_end(run_dir: Path) -> bytes:
    """Let the run finish; the weights that it made."""
    for rank, process in enumerate(start(configuration(run_dir))):
        process.join(240)
        assert process.exitcode == 0, (run_dir / f"{rank}.log").read_text()[-4000:]
    return (run_dir / "model" / "model.safetensors").read_bytes()


def end(ranks: list[BaseProcess], first: int, pause: float) -> None:
    """Kill rank ``first``, and the others a moment later, as a launcher does."""
    ranks[first].kill()
    time.sleep(pause)
    for process in ranks:
        process.kill()
        process.join()


def live_and_die(run_dir: Path, rng: random.Random) -> bool:
    """Start the run, kill a rank at a random moment; whether a save was left unfinished."""
    folders = CheckpointFolders(run_dir / "checkpoints", keep=2)
    every = rng.choice([1, 1, 2])
    ranks = start(configuration(run_dir, every))
    if rng.random() < 0.25:  # while it starts, loads and verifies
        time.sleep(rng.uniform(0.0, 1.5))
    else:  # while it trains and saves
        seconds = 0.0
        for _ in range(rng.randint(1, 3)):
            seconds = wait_for_a_checkpoint(folders, ranks)
        if rng.random() < 0.5:
            time.sleep(min(1.0, seconds) * rng.uniform(0.0, 1.5))
        else:
            wait_for_a_save(folders, ranks)
    assert all(process.is_alive() for process in ranks), logs(run_dir)
    end(ranks, first=rng.randrange(len(ranks)), pause=rng.uniform(0.0, 0.05))
    return any(folders.root.glob("*.partial-*"))


def wait_for_a_checkpoint(folders: CheckpointFolders, ranks: list[BaseProcess]) -> float:
    """Seconds until there was a new one."""
    begun, before = time.monotonic(), folders.latest()
    while folders.latest() == before:
        assert all(process.is_alive() for process in ranks), logs(folders.root.parent)
        assert time.monotonic() - begun < 120
        time.sleep(0.002)
    return time.monotonic() - begun


def wait_for_a_save(folders: CheckpointFolders, ranks: list[BaseProcess]) -> None:
    """Wait until one is being written."""
    while not any(folders.root.glob("*.partial-*")):
        assert all(process.is_alive() for process in ranks), logs(folders.root.parent)
        time.sleep(0.001)


def logs(run_dir: Path) -> str:
    return "\n".join(log.read_text()[-3000:] for log in sorted(run_dir.glob("*.log")))


@pytest.mark.slow
@pytest.mark.serial
@pytest.mark.timeout(600)
def test_twenty_kills_at_random_moments_change_nothing(tmp_path):
    undisturbed = run_to_the_end(tmp_path / "undisturbed")

    rng = random.Random(20)
    run_dir = tmp_path / "killed"
    in_flight: list[bool] = []
    while len(in_flight) < KILLS or sum(in_flight) < 5:  # a busy machine may kill too late
        in_flight.append(live_and_die(run_dir, rng))
    reached = CheckpointFolders(run_dir / "checkpoints", keep=2).latest()
    assert reached is not None and 0 < reached < STEPS

    assert run_to_the_end(run_dir) == undisturbed
    assert sorted(entry.name for entry in (run_dir / "checkpoints").iterdir()) == [
        f"{STEPS - 1:06d}",
        f"{STEPS:06d}",
    ]
    print(f"{sum(in_flight)} of {len(in_flight)} kills hit a save; step {reached} was reached")
