"""The record of a run: replayed steps are marked, and count for no speed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch.distributed as dist

from engine.config.reader.loading import load
from engine.monitoring.metrics_file import read_metrics
from engine.monitoring.phases import Phases
from engine.run.record import Record
from engine.run.step import Step
from recipes import zero

CONFIG = Path(__file__).parents[2] / "recipes" / "configs" / "quickstart" / "zero.yaml"


@pytest.fixture
def one_rank(tmp_path):
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


def test_replayed_steps_are_marked_and_have_no_speed(one_rank, tmp_path, capsys):
    now = 0.0
    phases = Phases(clock=lambda: now)
    record = Record(load(zero.Config, CONFIG, [f"run_dir={tmp_path}"]), phases, first_step=4)
    record.start(total=8)
    phases.take()
    for number, seconds, replayed in ((4, 1.0, True), (5, 1.0, True), (6, 10.0, False)):
        with phases("update"):
            now += seconds
        step = Step(number, 8, tokens=300, replayed=replayed)
        record.step(step, every=1)
    record.close()
    first, second, third = read_metrics(tmp_path / "metrics.jsonl")
    for line in (first, second):
        assert line["rollout/replayed"] == 1.0
        assert not any(name.startswith(("speed/", "seconds/")) for name in line)
    assert "rollout/replayed" not in third
    assert third["speed/tokens_per_second"] == 30.0
    assert third["speed/seconds_per_step"] == third["seconds/update"] == 10.0
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step")]
    assert [("replayed" in line, "s/step" in line) for line in shown] == [
        (True, False), (True, False), (False, True),
    ]  # fmt: skip


def test_a_line_of_several_steps_speaks_of_those_that_were_not_replayed(one_rank, tmp_path):
    now = 0.0
    phases = Phases(clock=lambda: now)
    record = Record(load(zero.Config, CONFIG, [f"run_dir={tmp_path}"]), phases, first_step=0)
    record.start(total=3)
    phases.take()
    for number, seconds in enumerate((4.0, 2.0, 3.0)):
        with phases("update"):
            now += seconds
        record.step(Step(number, 3, tokens=100, replayed=number == 0), every=3)
    record.close()
    (line,) = read_metrics(tmp_path / "metrics.jsonl")
    assert line["speed/tokens_per_second"] == 40.0 and line["speed/seconds_per_step"] == 2.5
