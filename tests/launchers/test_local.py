"""The local launcher with real process trees: they live and die together, and nothing is left."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest
import yaml
from launched import Launched, assert_nothing_left, leftovers

from launchers.supervisor import GRACE_SECONDS

pytestmark = [pytest.mark.slow, pytest.mark.serial]

Start = Callable[..., Launched]

LIMIT = 60
"""Seconds for what comes soon, and on a busy machine later: no test is about this number."""


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def start(launch: Start, tmp_path: Path, run_dir: Path) -> Start:
    """Start the toy recipe with ``work`` and ``services``: role -> what each process does."""

    def start(
        work: dict[str, list[str]],
        services: dict[str, list[str]] | None = None,
        *overrides: str,
        through: Sequence[str] = (),
        terminal: bool = False,
    ) -> Launched:
        config = tmp_path / "config.yaml"
        config.write_text(
            yaml.safe_dump({"run_dir": str(run_dir), "work": work, "services": services or {}})
        )
        launcher = [sys.executable, "-m", "launchers.local"]
        command = [*through, *launcher, "toy_recipe", str(config), *overrides]
        toys = {"PYTHONPATH": str(Path(__file__).parent)}
        return launch(command, env=toys, terminal=terminal)

    return start


def wait_for_log(run_dir: Path, name: str, text: str = "=== start") -> None:
    deadline = time.monotonic() + LIMIT
    log = run_dir / "logs" / f"{name}.log"
    while not (log.exists() and text in log.read_text()):
        assert time.monotonic() < deadline, f"{text!r} not in {log}"
        time.sleep(0.02)


def wait_for_file(file: Path) -> int:
    deadline = time.monotonic() + LIMIT
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < deadline, f"{file} was not written"
        time.sleep(0.02)
    return int(file.read_text())


def test_a_complete_run_stops_its_services_and_ends_well(start: Start, run_dir: Path):
    run = start({"trainer": ["finish"], "sampler": ["leave"]}, {"server": ["sleep"]})
    assert run.wait(LIMIT) == 0
    assert "error" not in run.output
    assert "the work is done" in (run_dir / "logs" / "trainer-0.log").read_text()
    assert yaml.safe_load((run_dir / "config.yaml").read_text())["services"] == {
        "server": ["sleep"]
    }
    assert_nothing_left(run_dir, 0)


def test_a_failure_ends_all_within_ten_seconds_with_the_reason(
    start: Start, run_dir: Path, tmp_path: Path
):
    escaped = tmp_path / "escaped.pid"
    run = start(
        {"trainer": ["fail 0.5", "stubborn"], "sampler": ["sleep"]},
        {"server": [f"escape {escaped}"]},
    )
    grandchild = wait_for_file(escaped)
    run.wait_for("trainer-0 has ended", LIMIT)
    began = time.monotonic()
    assert run.wait(LIMIT) == 1
    assert time.monotonic() - began < 10
    assert not psutil.pid_exists(grandchild)
    assert_nothing_left(run_dir, 0)
    last = run.output.strip().splitlines()[-1]
    assert last.startswith("error: trainer-0 failed with exit status 1")
    assert "the moon is missing" in last


def test_the_cause_is_named_though_its_consequence_was_seen_first(start: Start, tmp_path: Path):
    pid = tmp_path / "sampler.pid"
    work = {"sampler": [f"fail-first {pid}"], "trainer": ["sleep"]}
    run = start(work, {"server": [f"follow {pid}"]})
    assert run.wait(LIMIT) == 1
    assert "error: server-0 was killed by SIGKILL" in run.output
    assert "also ended: sampler-0 failed with exit status 1" in run.output


def test_a_rank_that_only_lost_its_peer_is_not_blamed_though_the_peer_ends_later(
    start: Start, tmp_path: Path
):
    pid = tmp_path / "rank.pid"
    run = start({"trainer": [f"lose-peer {pid}", f"late {pid}"]})
    assert run.wait(LIMIT) == 1
    assert "also ended: trainer-0 failed with exit status 1" in run.output
    last = run.output.strip().splitlines()[-1]
    assert last.startswith("error: trainer-1 failed with exit status 1")
    assert "KeyError: 'layer 7' (" in last and "toy_process.py, line " in last


def test_a_server_that_is_blamed_has_the_last_word_before_it_has_ended(
    start: Start, tmp_path: Path
):
    done = tmp_path / "stumbled"
    run = start({"sampler": [f"blame {done}"]}, {"server": [f"stumble {done}"]})
    assert run.wait(LIMIT) == 1
    last = run.output.strip().splitlines()[-1]
    assert last.startswith("error: sampler-0 failed with exit status 1")
    assert "cannot be reached; server-0: its Scheduler: RuntimeError: no kernel for this" in last


def test_a_process_that_somebody_ended_is_said_to_be_so(start: Start):
    run = start({"trainer": ["told-to-end"]})
    assert run.wait(LIMIT) == 1
    assert "error: trainer-0 was ended by SIGTERM" in run.output
    assert "no part of the run sent it" in run.output.strip().splitlines()[-1]


def test_a_service_that_ends_stops_the_run(start: Start):
    run = start({"trainer": ["sleep"]}, {"server": ["leave"]})
    assert run.wait(LIMIT) == 1
    assert "error: server-0, which should run until it is stopped, ended" in run.output


def test_the_tail_of_a_long_log_is_shown(start: Start):
    run = start({"trainer": ["chatter"]})
    assert run.wait(LIMIT) == 1
    assert "    line 19980\n" in run.output
    assert "    line 19999\n" in run.output
    assert "line 19979\n" not in run.output
    assert "exit status 7" in run.output


def test_ctrl_c_lets_processes_leave_properly(start: Start, run_dir: Path):
    run = start({"trainer": ["tidy"]}, {"server": ["sleep"]}, terminal=True)
    wait_for_log(run_dir, "trainer-0", "at work")
    run.press("\x03")
    assert run.wait(LIMIT) == 130
    wait_for_log(run_dir, "trainer-0", "tidied up")
    assert "stopped by Ctrl-C; the next start of the same command goes on from" in run.output
    assert_nothing_left(run_dir, 0)


def test_a_second_ctrl_c_kills_at_once(start: Start, run_dir: Path):
    def seconds() -> float:
        run = start({"trainer": ["stubborn"]}, terminal=True)
        wait_for_log(run_dir, "trainer-0", "now stubborn")
        (run_dir / "logs" / "trainer-0.log").unlink()
        run.press("\x03")
        run.wait_for("stopping", LIMIT)
        began = time.monotonic()
        run.press("\x03")
        assert run.wait(LIMIT) == 130
        assert_nothing_left(run_dir, 0)
        return time.monotonic() - began

    # A stalled machine can make one attempt slow; without the second Ctrl-C every one would be.
    assert any(seconds() < GRACE_SECONDS - 0.5 for _ in range(4))


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_other_stop_signals_stop_the_run(
    start: Start, run_dir: Path, signum: signal.Signals, status: int
):
    run = start({"trainer": ["sleep"]})
    wait_for_log(run_dir, "trainer-0")
    run.send(signum)
    assert run.wait(LIMIT) == status
    assert signum.name in run.output
    assert_nothing_left(run_dir, 0)


@pytest.mark.parametrize("victim", ["launcher", "supervisor"])
def test_a_killed_launcher_leaves_nothing(start: Start, run_dir: Path, tmp_path: Path, victim: str):
    escaped = tmp_path / "escaped.pid"
    run = start({"trainer": ["stubborn"]}, {"server": [f"escape {escaped}"]})
    wait_for_log(run_dir, "trainer-0", "now stubborn")
    grandchild = wait_for_file(escaped)
    pid = run.pid if victim == "launcher" else psutil.Process(run.pid).children()[0].pid
    os.kill(pid, signal.SIGKILL)
    status = run.wait(LIMIT)
    assert status == (-signal.SIGKILL if victim == "launcher" else 1)
    assert_nothing_left(run_dir, LIMIT)
    assert not psutil.pid_exists(grandchild)


def test_a_folder_can_be_started_again_right_after_its_launcher_was_killed(
    start: Start, run_dir: Path
):
    run = start({"trainer": ["stubborn"]})
    wait_for_log(run_dir, "trainer-0", "now stubborn")
    run.send(signal.SIGKILL)
    run.wait(LIMIT)
    assert start({"trainer": ["finish"]}).wait(LIMIT) == 0


def test_a_run_folder_in_use_is_refused_with_the_pid_of_its_launcher(start: Start, run_dir: Path):
    first = start({"trainer": ["sleep"]})
    wait_for_log(run_dir, "trainer-0")
    second = start({"trainer": ["sleep"]})
    assert second.wait(LIMIT) == 1
    assert second.output.startswith(
        f"error: run_dir: {run_dir} is in use by the launcher with pid {first.pid}"
    )
    assert len(leftovers(run_dir)) >= 2  # the first is not disturbed


def test_a_used_port_is_refused_before_anything_starts(start: Start, run_dir: Path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        run = start({"trainer": ["sleep"]}, {}, f"port={port}")
        assert run.wait(LIMIT) == 1
    assert run.output.startswith(f"error: port: port {port} on 127.0.0.1 is already in use by pid")
    assert not (run_dir / "logs").exists()


def test_fewer_steps_than_were_made_are_refused_before_anything_starts(
    start: Start, run_dir: Path, tmp_path: Path
):
    (run_dir / "checkpoints" / "000009").mkdir(parents=True)
    (run_dir / "launcher.lock").touch()
    run = start({"trainer": ["sleep"]}, {}, "steps=8")
    assert run.wait(LIMIT) == 1
    assert run.output.startswith(
        f"error: {tmp_path / 'config.yaml'}: steps: 8 are asked for, but the run in {run_dir} has"
        " made 9 already; ask for 9 or more"
    )
    assert not (run_dir / "logs").exists()


def test_a_resumed_run_says_what_differs_and_keeps_its_logs(start: Start, run_dir: Path):
    assert start({"trainer": ["finish"]}).wait(LIMIT) == 0
    second = start({"trainer": ["finish"]}, {}, "seed=2")
    assert second.wait(LIMIT) == 0
    assert "another configuration: seed: 1 -> 2" in second.output
    assert (run_dir / "logs" / "trainer-0.log").read_text().count("=== start of") == 2


def test_an_unknown_recipe_is_refused(launch: Start):
    run = launch([sys.executable, "-m", "launchers.local", "recipes.nought", "none.yaml"])
    assert run.wait(LIMIT) == 1
    assert run.output.startswith("error: no recipe 'recipes.nought'")


def test_a_process_that_cannot_be_started_ends_the_run(start: Start, run_dir: Path):
    (run_dir / "logs" / "b-0.log").mkdir(parents=True)  # where its log should go
    (run_dir / "launcher.lock").touch()
    run = start({"a": ["sleep"], "b": ["sleep"]})
    assert run.wait(LIMIT) == 1
    assert "error: b-0 could not be started" in run.output
    assert_nothing_left(run_dir, 0)


def test_a_run_can_be_told_to_stop_with_the_script_that_started_it(start: Start, run_dir: Path):
    script = ["bash", "-c", '"$@"; echo', "script"]
    run = start({"trainer": ["sleep"]}, {}, "--stop-with-parent", through=script)
    wait_for_log(run_dir, "trainer-0")
    run.send(signal.SIGKILL)
    assert_nothing_left(run_dir, LIMIT)
