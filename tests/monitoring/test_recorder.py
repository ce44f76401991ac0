"""What TensorBoard reads back from what the recorder wrote."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from example_run import example_samples
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from engine.monitoring.metrics_file import read_metrics
from engine.monitoring.recorder import Recorder, imbalance


def read_events(run_dir: Path) -> EventAccumulator:
    return EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"tensors": 0}).Reload()


def scalar(events: EventAccumulator, name: str) -> dict[int, float]:
    return {event.step: event.value for event in events.Scalars(name)}


def test_scalars_arrive_in_both_places(tmp_path: Path) -> None:
    with Recorder(tmp_path, first_step=0) as recorder:
        recorder.record(0, {"training/kl": 0.25, "rollout/tokens": 12})
        recorder.record(1, {"training/kl": math.nan, "evaluation/accuracy": 0.5})
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {"step": 0, "training/kl": 0.25, "rollout/tokens": 12},
        {"step": 1, "training/kl": None, "evaluation/accuracy": 0.5},
    ]
    events = read_events(tmp_path)
    kl = scalar(events, "training/kl")
    assert kl[0] == 0.25
    assert math.isnan(kl[1])
    assert scalar(events, "evaluation/accuracy") == {1: 0.5}


def test_a_resumed_run_shows_each_step_once_and_as_it_was_last_done(tmp_path: Path) -> None:
    with Recorder(tmp_path, first_step=0) as recorder:
        for step in range(5):
            recorder.record(step, {"training/kl": 1.0})
    with Recorder(tmp_path, first_step=3) as recorder:
        recorder.record(3, {"training/kl": 2.0})
    expected = {0: 1.0, 1: 1.0, 2: 1.0, 3: 2.0}
    events = read_events(tmp_path).Scalars("training/kl")
    assert [(event.step, event.value) for event in events] == list(expected.items())
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert {line["step"]: line["training/kl"] for line in lines} == expected


def test_values_are_visible_while_the_run_goes_on(tmp_path: Path) -> None:
    with Recorder(tmp_path, first_step=0) as recorder:
        recorder.record(0, {"training/kl": 0.5})
        assert scalar(read_events(tmp_path), "training/kl") == {0: 0.5}


FILLS_THE_DISK = """
import resource, sys
from pathlib import Path
from engine.errors import clear_errors
from engine.monitoring.recorder import Recorder
from engine.monitoring.sample_view import SampleView

SAMPLES = [SampleView("p", "1 + 1 = ?", "so 2 ;", "2", {}, 1.0)] * 4
run_dir = Path(sys.argv[1])
with clear_errors(), Recorder(run_dir, first_step=0) as recorder:
    recorder.record(0, {"training/kl": 1.0})
    size = max(path.stat().st_size for path in run_dir.rglob("*") if path.is_file())
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, resource.RLIM_INFINITY))
    recorder.record(1, {"training/kl": 1.0}, samples=SAMPLES)
"""


def test_a_full_disk_ends_the_process_with_one_clear_sentence(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FILLS_THE_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 1
    assert re.fullmatch(r"error: cannot write .*/tensorboard/.*: File too large\n", ended.stderr)
    with Recorder(tmp_path, first_step=1) as recorder:
        recorder.record(1, {"training/kl": 2.0})
    assert scalar(read_events(tmp_path), "training/kl") == {0: 1.0, 1: 2.0}


def test_expert_load_is_a_histogram_over_expert_numbers(tmp_path: Path) -> None:
    load = [0.0, 6.0, 1.0, 1.0]
    with Recorder(tmp_path, first_step=0) as recorder:
        recorder.record(0, {}, expert_load={"1": load})
    events = read_events(tmp_path)
    (event,) = events.Histograms("experts/load/1")
    assert event.histogram_value.bucket_limit == [0.5, 1.5, 2.5, 3.5]
    assert event.histogram_value.bucket == pytest.approx(load, abs=1e-8)
    assert scalar(events, "experts/imbalance/1") == {0: 3.0}
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 0, "experts/imbalance/1": 3.0}]


def test_imbalance_is_one_when_balanced_and_the_number_of_experts_when_collapsed() -> None:
    assert imbalance([2, 2, 2]) == 1.0
    assert imbalance([0, 0, 9]) == 3.0
    assert imbalance([0, 0]) == 1.0


def test_samples_are_text_that_cannot_become_markup(tmp_path: Path) -> None:
    sample = example_samples(final=True)[0]
    with Recorder(tmp_path, first_step=0) as recorder:
        recorder.record(4, {}, samples=[sample])
    (event,) = read_events(tmp_path).Tensors("samples/0/text_summary")
    text = event.tensor_proto.string_val[0].decode()
    assert event.step == 4
    assert f"\n    {sample.response}\n" in text
    assert text.startswith(
        "accuracy **right**, format **right**, language **1**, reward 3, reference answer `7`"
    )


def charts_of(run_dir: Path) -> dict[str, list[str]]:
    """The overview's charts and their tags, as TensorBoard finds them: the latest counts."""
    events = read_events(run_dir).Tensors("custom_scalars__config__")
    layout = Layout.FromString(events[-1].tensor_proto.string_val[0])
    return {chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart}


def test_the_overview_has_a_chart_of_every_reward_that_occurs(tmp_path: Path) -> None:
    with Recorder(tmp_path, first_step=0) as recorder:
        recorder.record(0, {"training/loss": 1.0})
        assert "accuracy" not in charts_of(tmp_path)
        recorder.record(1, {"reward/my.own": 1.0, "reward/mean": 1.0, "evaluation/my.own": 0.5})
        recorder.record(2, {"reward/my.own": 1.0, "reward/late": 1.0, "reward/mean": 1.0})
        recorder.record(3, {"reward/my.own": 1.0, "reward/mean": 1.0})
    charts = charts_of(tmp_path)
    assert charts["my.own"] == [r"^evaluation/my\.own$", r"^reward/my\.own$"]
    assert charts["late"] == ["^evaluation/late$", "^reward/late$"]
    assert "mean" not in charts
