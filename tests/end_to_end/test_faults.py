"""What goes wrong in a run is said in one clear sentence, ends everything, and loses nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from launched import assert_nothing_left, leftovers
from zero_runs import STEPS, zero_command

from engine.checkpoint.folders import CheckpointFolders
from engine.monitoring.metrics_file import read_metrics
from engine.rollout.store import RolloutStore

pytestmark = [pytest.mark.slow, pytest.mark.serial]

STOPS_WITHIN = 15  # seconds: ten for the processes, and some for a loaded machine


def last_line(output: str) -> str:
    return output.strip().splitlines()[-1]


def refused(command: list[str], limit: float = 200) -> str:
    """The last line of a command that refuses to start anything."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def server_processes(run_dir: Path, text: str) -> list[psutil.Process]:
    """The run's processes that have ``text`` in their command line or title."""
    found = []
    for process in leftovers(run_dir):
        with contextlib.suppress(psutil.Error):
            if text in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_a_wrong_key_is_named_with_the_nearest_right_one(base, tmp_path):
    said = refused(
        zero_command(base, tmp_path / "run", "algorithm.clip_hgh=0.3", "rollout.temperature=hot")
    )
    assert "algorithm.clip_hgh" in said and "clip_high" in said
    assert "rollout.temperature" in said and "number" in said
    assert not (tmp_path / "run").exists()


def test_a_missing_model_is_named(base, tmp_path):
    said = refused(zero_command(base, tmp_path / "run", f"model={tmp_path / 'nowhere'}"))
    assert "model" in said and "nowhere" in said


def test_a_used_port_is_named_with_its_holder(base, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        said = refused(zero_command(base, tmp_path / "run", f"servers.port={port}"))
    assert "servers.port" in said and str(port) in said and str(os.getpid()) in said


def test_a_disagreement_of_trainer_and_sampler_stops_the_run(base, tmp_path, launch):
    run = launch(zero_command(base, tmp_path / "run", "parity.max_logprob_difference=1e-9"))
    assert run.wait(limit=200) == 1
    said = last_line(run.output)
    assert "trainer and sampler disagree at weight version 0: response token" in said
    assert "of prompt" in said and "parity.max_logprob_difference" in said
    assert RolloutStore(tmp_path / "run" / "rollouts").is_done(0)


def test_a_run_that_diverges_says_so_and_pushes_and_saves_nothing_of_it(
    base, finished, tmp_path, launch
):
    run_dir = tmp_path / "run"
    shutil.copytree(finished, run_dir)
    longer = f"steps={STEPS + 2}"
    run = launch(zero_command(base, run_dir, longer, "checkpoint.keep=1", "optimizer.lr=1e20"))
    assert run.wait(limit=200) == 1
    said = last_line(run.output)
    assert f"training diverged at step {STEPS}, minibatch 0: its gradient was finite" in said
    assert "learning rate of 1e+20" in said and f"is of step {STEPS}" in said
    assert [entry.name for entry in (run_dir / "weights").iterdir()] == [f"{STEPS:06d}"]
    assert CheckpointFolders(run_dir / "checkpoints", keep=1).latest() == STEPS
    lines = read_metrics(run_dir / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(STEPS))
    assert None not in [value for line in lines for value in line.values()]


def test_a_server_that_dies_is_named_and_the_next_start_goes_on(base, tmp_path, launch):
    run_dir = tmp_path / "run"
    run = launch(zero_command(base, run_dir))
    run.wait_for("step 1/3", limit=200)
    for process in server_processes(run_dir, "sglang_cpu.serve"):
        process.send_signal(signal.SIGKILL)
    assert run.wait(limit=STOPS_WITHIN) == 1
    said = last_line(run.output)
    assert said.startswith("error: server-0 was killed by SIGKILL")
    assert "a person or another program did" in said
    assert_nothing_left(run_dir, limit=5)
    first = RolloutStore(run_dir / "rollouts").samples(0)

    again = launch(zero_command(base, run_dir))
    assert again.wait(limit=300) == 0, again.output
    assert RolloutStore(run_dir / "rollouts").samples(0) == first
    assert [line["step"] for line in read_metrics(run_dir / "metrics.jsonl")] == [0, 1, 2, 3]


def test_a_server_that_hangs_is_named_within_its_limit(base, tmp_path, launch):
    run_dir = tmp_path / "run"
    run = launch(zero_command(base, run_dir, "servers.request_seconds=6", f"steps={10 * STEPS}"))
    run.wait_for("step  2/30", limit=200)
    for process in server_processes(run_dir, "sglang"):
        process.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    assert run.wait(limit=6 + 2 * STOPS_WITHIN) == 1
    assert time.monotonic() - started > 1
    said = last_line(run.output)
    assert "server-0" in said and "6 s" in said
    assert_nothing_left(run_dir, limit=5)


def test_a_reward_that_never_returns_is_a_timeout_and_the_run_goes_on(base, tmp_path):
    endless = tmp_path / "endless.jsonl"
    problems = (base / "prompts" / "train.jsonl").read_text().splitlines()[:200]
    changed = [{**json.loads(line), "answer": "9^{9^{9^9}}"} for line in problems]
    endless.write_text("".join(json.dumps(problem) + "\n" for problem in changed))
    run_dir = tmp_path / "run"
    command = zero_command(
        base,
        run_dir,
        f"prompts.train={endless}",
        "rewards.accuracy.deadline_seconds=1.0",
        "steps=1",
        "rollout.max_new_tokens=90",
    )
    subprocess.run(command, check=True, timeout=300)
    outcomes = {s.scores["accuracy"].outcome for s in RolloutStore(run_dir / "rollouts").samples(0)}
    assert "timeout" in outcomes and "right" not in outcomes
    assert read_metrics(run_dir / "metrics.jsonl")[0]["outcome/accuracy/timeout"] > 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB of its own."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this machine does not let us mount a small file system")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_is_said_and_once_there_is_room_the_run_goes_on(base, small_disk, launch):
    run_dir = small_disk / "run"
    full = launch(zero_command(base, run_dir))
    assert full.wait(limit=200) == 1
    said = last_line(full.output)
    assert "No space left on device" in said or "full" in said
    assert str(run_dir) in said

    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    again = launch(zero_command(base, run_dir))
    assert again.wait(limit=300) == 0, again.output
    assert RolloutStore(run_dir / "rollouts").steps() == [0, 1, 2]
    shutil.rmtree(run_dir)
