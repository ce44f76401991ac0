"""R1-Zero from the launcher's command to its result, and again from the middle."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from launched import assert_nothing_left, leftovers
from zero_runs import STEPS, base_command, final_weights, side_by_side, zero_command

from engine.monitoring.metrics_file import read_metrics
from engine.rollout.store import RolloutStore
from engine.run.placement import VARIABLE

pytestmark = [pytest.mark.slow, pytest.mark.serial]


def with_rollouts_of(source: Path, target: Path) -> Path:
    """A run folder that holds nothing but the samples of another run."""
    for kept in ("rollouts", "evaluations"):
        shutil.copytree(source / kept, target / kept)
    return target


def trainer(run_dir: Path, rank: int) -> psutil.Process:
    """The process of one trainer rank, known by its environment."""
    for process in leftovers(run_dir):
        try:
            environment = process.environ()
        except psutil.Error:
            continue
        placed = json.loads(environment.get(VARIABLE, "{}"))
        if (placed.get("role"), placed.get("index")) == ("trainer", rank):
            return process
    raise AssertionError(f"no trainer rank {rank} of {run_dir} is running")


def wait_until(condition, limit: float) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"not so within {limit} s"
        time.sleep(0.02)


def test_a_finished_run_leaves_all_that_it_promises(finished):
    summary = json.loads((finished / "summary.json").read_text())
    promised = {
        *("base_accuracy", "final_accuracy", "base_response_length", "final_response_length"),
        *("base_format", "final_format", "steps", "seconds_by_phase", "tokens_per_second"),
        *("max_logprob_difference", "seed"),
    }
    assert promised <= set(summary)
    assert summary["steps"] == STEPS and summary["seed"] == 1
    assert 0 < summary["max_logprob_difference"] < 1e-4
    assert (finished / "report.html").stat().st_size > 10_000
    lines = read_metrics(finished / "metrics.jsonl")
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    assert lines[0]["rollout/tokens"] > 0 and "experts/imbalance/layer-0" in lines[0]
    assert summary["mfu_update"] is None and not any("mfu" in name for name in lines[0])
    environment = json.loads((finished / "environment.json").read_text())
    assert environment["layout"]["ep"] == 2
    assert_nothing_left(finished, limit=5)


def test_every_sample_was_made_by_the_weights_of_its_step(finished):
    store = RolloutStore(finished / "rollouts")
    assert store.steps() == [0, 1, 2]
    for step in store.steps():
        samples = store.samples(step)
        assert len(samples) == 16
        assert {sample.weight_version for sample in samples} == {step}


def test_the_policy_moves_and_the_reference_follows_on_schedule(finished):
    lines = read_metrics(finished / "metrics.jsonl")
    assert (
        final_weights(finished) != (finished.parent / "base/model/model.safetensors").read_bytes()
    )
    # the reference is the base for steps 0 and 1, and the policy of version 2 in step 2
    assert lines[1]["training/kl"] > 1e-7
    assert lines[2]["training/kl"] < lines[1]["training/kl"]


def test_two_starts_from_the_same_rollouts_give_the_same_weights(base, finished, tmp_path):
    again = with_rollouts_of(finished, tmp_path / "again")
    subprocess.run(zero_command(base, again), check=True, timeout=300)
    assert final_weights(again) == final_weights(finished)


def test_another_algorithm_gives_the_same_weights_twice_from_the_same_rollouts(
    base, finished, tmp_path
):
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        for kind in ("rollouts", "evaluations"):
            shutil.copytree(finished / kind / "000000", folder / kind / "000000")
    dapo = ("algorithm.name=dapo", "steps=1", "minibatches=1")
    side_by_side(*(zero_command(base, folder, *dapo) for folder in folders))
    one, other = map(final_weights, folders)
    assert one == other
    assert one != (base / "model" / "model.safetensors").read_bytes()


def test_one_override_runs_another_layout_with_the_same_numbers(base, finished, tmp_path):
    """The other layouts are fed the rollouts of ep=2; their parity gates hold at every push.

    The router's balance loss, of each sample by itself, is among the numbers.
    """
    expected = read_metrics(finished / "metrics.jsonl")[:STEPS]
    others = {key: with_rollouts_of(finished, tmp_path / key) for key in ("tp", "pp")}
    side_by_side(*(zero_command(base, run, f"layout.{key}=2") for key, run in others.items()))
    for key, run in others.items():
        assert json.loads((run / "environment.json").read_text())["layout"][key] == 2
        found = read_metrics(run / "metrics.jsonl")[:STEPS]
        for ours, theirs in zip(found, expected, strict=True):
            assert ours["parity/max_logprob_difference"] < 1e-4
            for name in ("training/kl", "training/entropy", "training/gradient_norm"):
                assert ours[name] == pytest.approx(theirs[name], rel=1e-2), (key, name)


def test_a_run_killed_in_a_step_ends_as_the_undisturbed_one(base, finished, tmp_path, launch):
    killed = with_rollouts_of(finished, tmp_path / "killed")
    first = launch(zero_command(base, killed))
    wait_until((killed / "checkpoints" / "000001").is_dir, limit=200)
    trainer(killed, rank=1).send_signal(signal.SIGKILL)
    assert first.wait(limit=15) == 1
    assert "trainer-1" in first.output and "SIGKILL" in first.output
    assert_nothing_left(killed, limit=5)
    assert not (killed / "summary.json").exists()

    second = launch(zero_command(base, killed))
    assert second.wait(limit=300) == 0, second.output
    assert "going on from the checkpoint" in second.output
    assert final_weights(killed) == final_weights(finished)
    steps = [line["step"] for line in read_metrics(killed / "metrics.jsonl")]
    assert steps == [0, 1, 2, 3]


def test_finished_groups_of_a_killed_rollout_are_not_sampled_again(base, tmp_path, launch):
    run_dir, many = tmp_path / "run", "rollout.prompts_per_step=24"
    groups = run_dir / "rollouts" / "000001" / "groups"
    first = launch(zero_command(base, run_dir, many, "rollout.max_new_tokens=90"))
    wait_until(lambda: groups.is_dir() and any(groups.glob("*.parquet")), limit=200)
    first.send(signal.SIGKILL)
    first.wait(limit=10)
    assert_nothing_left(run_dir, limit=10)
    kept = [path.name for path in groups.glob("*.parquet")]
    assert kept

    store = RolloutStore(run_dir / "rollouts")
    second = launch(zero_command(base, run_dir, many, "rollout.max_new_tokens=90"))
    assert second.wait(limit=300) == 0, second.output
    assert store.steps() == [0, 1, 2]
    for name in kept:
        group = int(name.removesuffix(".parquet"))
        found = [sample for sample in store.samples(1) if sample.group == group]
        assert found and all(sample.requested_at < second_start(run_dir) for sample in found)


def second_start(run_dir: Path) -> float:
    """When the run's second sampler wrote its first line, in unix seconds."""
    log = (run_dir / "logs" / "sampler-0.log").read_text().splitlines()
    starts = [line for line in log if "start of" in line]
    assert len(starts) == 2
    stamp = starts[1].split(" at ")[1].split(": ")[0]
    return time.mktime(time.strptime(stamp, "%Y-%m-%d %H:%M:%S"))


def test_a_base_that_is_made_is_not_made_again(base):
    made = (base / "model" / "model.safetensors").stat().st_mtime_ns
    subprocess.run(base_command(base), check=True, timeout=280)
    assert (base / "model" / "model.safetensors").stat().st_mtime_ns == made


def test_a_base_of_another_configuration_is_refused(base):
    command = [*base_command(base), "seed=2"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert refused.returncode == 1
    assert "holds a finished run with another seed" in refused.stderr


def test_a_base_that_cannot_do_a_step_is_refused(tmp_path):
    command = [*base_command(tmp_path / "weak"), "gate.min_probability=0.7"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert refused.returncode == 1
    assert "gate.min_probability: the base gets through a full trace" in refused.stderr
    assert not (tmp_path / "weak" / "model").exists()
