"""summary.json against hand-computed numbers."""

from __future__ import annotations

import json

import pytest

from engine.monitoring.summary import Compared, EvaluationResult, Measure, compare, summarize
from engine.platform.files import replace_json

BASE = EvaluationResult(
    0,
    256,
    512,
    {"accuracy": Measure(0.125, 0.02), "my.own": Measure(-0.2504, 0.1, graded=True)},
    22.0,
)
FINAL = EvaluationResult(
    2, 256, 512, {"accuracy": Measure(0.75, 0.03), "my.own": Measure(0.5, 0.2, graded=True)}, 44.0
)


def step(number: int, seconds: float, tokens: int, difference: float) -> dict:
    return {
        "step": number,
        "speed/seconds_per_step": seconds,
        "rollout/tokens": tokens,
        "parity/max_logprob_difference": difference,
        "parity/behind_routing_ties": 0.25 * number,
        "seconds/rollout": seconds - 1,
        "seconds/update": 1.0,
    }


def test_hand_computed_summary() -> None:
    lines = [
        step(0, 3.0, 1000, 1e-6),
        step(1, 2.0, 500, 4e-6),
        {"step": 2, "evaluation/accuracy": 0.75, "parity/max_logprob_difference": 2e-6},
    ]
    assert summarize(lines, BASE, FINAL, seed=3) == {
        "base_accuracy": 0.125,
        "final_accuracy": 0.75,
        "base_my.own": -0.2504,
        "final_my.own": 0.5,
        "base_response_length": 22.0,
        "final_response_length": 44.0,
        "evaluation_problems": 256,
        "steps": 2,
        "replayed_steps": 0,
        "seconds": 5.0,
        "seconds_by_phase": {"rollout": 3.0, "update": 2.0},
        "tokens_per_second": 300.0,
        "mfu_update": None,
        "mfu_step": None,
        "trained_tokens_per_second_per_gpu": None,
        "max_logprob_difference": 4e-6,
        "behind_routing_ties": 0.125,
        "seed": 3,
    }


def test_utilisation_is_the_mean_over_the_steps_that_know_it() -> None:
    lines = [
        {**step(0, 3.0, 1000, 1e-6), "speed/mfu_update": 0.3, "speed/mfu_step": 0.1},
        {**step(1, 2.0, 500, 1e-6), "speed/mfu_update": 0.5, "speed/mfu_step": 0.2},
        step(2, 2.0, 500, 1e-6),
    ]
    summary = summarize(lines, BASE, FINAL, seed=3)
    assert summary["mfu_update"] == pytest.approx(0.4)
    assert summary["mfu_step"] == pytest.approx(0.15)


def test_a_run_without_steps_has_a_summary_too(tmp_path) -> None:
    summary = summarize([], BASE, BASE, seed=3)
    assert summary["steps"] == 0
    assert summary["tokens_per_second"] is summary["max_logprob_difference"] is None
    replace_json(tmp_path / "summary.json", summary)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_a_comparison_adds_up_as_it_is_shown() -> None:
    assert compare(BASE, FINAL) == [
        Compared("accuracy", "share right", "0.125", "0.750", "+0.625", ("0.020", "0.030")),
        Compared("my.own", "mean value", "-0.250", "0.500", "+0.750", ("0.100", "0.200")),
        Compared("", "mean response, tokens", "22.0", "44.0", "+22.0"),
    ]


def test_a_measure_of_one_problem_is_compared_without_errors() -> None:
    one = EvaluationResult(0, 1, 4, {"accuracy": Measure(0.25, None)}, 22.0)
    (line, _) = compare(one, one)
    assert line == Compared("accuracy", "share right", "0.250", "0.250", "+0.000", None)


def test_rewards_that_only_one_evaluation_has_are_not_compared() -> None:
    other = EvaluationResult(2, 256, 512, {"judge": Measure(0.5, 0.1)}, 44.0)
    assert [line.name for line in compare(BASE, other)] == [""]
    assert summarize([], BASE, other, seed=3)["final_judge"] == 0.5


def test_replayed_steps_are_counted_and_have_no_part_in_speed() -> None:
    replayed = {"step": 0, "rollout/tokens": 9000, "rollout/replayed": 1.0}
    summary = summarize([replayed, step(1, 2.0, 500, 1e-6)], BASE, FINAL, seed=3)
    assert (summary["steps"], summary["replayed_steps"]) == (2, 1)
    assert (summary["seconds"], summary["tokens_per_second"]) == (2.0, 250.0)


def test_a_run_without_a_first_evaluation_has_no_figures_of_the_base() -> None:
    summary = summarize([step(4, 2.0, 500, 1e-6)], None, FINAL, seed=3)
    assert summary["base_accuracy"] is summary["base_response_length"] is None
    assert summary["final_accuracy"] == 0.75


def test_skipped_minibatches_are_in_it_where_they_were_counted() -> None:
    lines = [
        {**step(number, 1.0, 10, 0.0), "training/skipped_minibatches": float(skipped)}
        for number, skipped in enumerate([0, 1, 3])
    ]
    assert summarize(lines, BASE, FINAL, seed=3)["skipped_minibatches"] == 3
