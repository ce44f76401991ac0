"""A made-up run of 60 steps, shaped like the quickstart's, for the tests of this folder."""

from __future__ import annotations

import math
import random

from engine.monitoring.report import Report
from engine.monitoring.sample_view import SampleView, Verdict
from engine.monitoring.summary import EvaluationResult, Measure, summarize

STEPS = 60


def result(
    version: int, accuracy: float, well_formed: float, language: float, length: float
) -> EvaluationResult:
    rewards = {
        "accuracy": Measure(accuracy, (accuracy * (1 - accuracy) / 256) ** 0.5),
        "format": Measure(well_formed, (well_formed * (1 - well_formed) / 256) ** 0.5),
        "language": Measure(language, 0.01, graded=True),
    }
    return EvaluationResult(version, 256, 256, rewards, length)


BASE = result(0, accuracy=0.125, well_formed=0.45, language=0.7126, length=22.25)
FINAL = result(STEPS, accuracy=0.9375, well_formed=1.0, language=0.9544, length=43.5)


def example_lines(steps: int = STEPS) -> list[dict]:
    rng = random.Random(1)
    lines = []
    for step in range(steps + 1):
        done = step / steps
        skill = 0.12 + 0.8 / (1 + math.exp(-10 * (done - 0.5)))
        line: dict = {"step": step}
        if step % 15 == 0 or step == steps:
            line |= {"evaluation/accuracy": skill, "evaluation/response_length": 22 + 24 * done}
            line |= {"evaluation/format": 0.45 + 0.55 * done}
            line |= {"evaluation/language": 0.71 + 0.24 * done}
        if step < steps:
            line |= training_scalars(done, skill, rng)
        lines.append(line)
    return lines


def training_scalars(done: float, skill: float, rng: random.Random) -> dict[str, float]:
    seconds = {
        "rollout": 1.2 + 0.4 * done + 0.1 * rng.random(),
        "evaluation": 0.8 if rng.random() < 0.06 else 0.0,
        "log-probabilities": 0.25,
        "update": 0.7 + 0.2 * done,
        "weights": 0.1,
        "checkpoint": 0.3 if rng.random() < 0.1 else 0.0,
        "other": 0.05,
    }
    noisy = min(1.0, max(0.0, skill + 0.04 * rng.gauss(0, 1)))
    wall = sum(seconds.values())
    tokens = int(256 * (22 + 22 * done))
    return {
        "reward/accuracy": noisy,
        "reward/format": 0.45 + 0.54 * done**0.5,
        "reward/language": 0.71 + 0.24 * done,
        "reward/mean": noisy + 1.16 + 0.54 * done**0.5 + 0.24 * done,
        "outcome/accuracy/right": noisy,
        "outcome/accuracy/wrong": 1 - noisy,
        "outcome/format/right": 1.0,
        "outcome/language/graded": 1.0,
        "rollout/response_length": 22 + 22 * done + rng.random(),
        "rollout/tokens": tokens,
        "rollout/zero_variance_groups": 0.1 + 0.25 * done,
        "training/loss": -0.02 * rng.random(),
        "training/kl": 0.02 * done + 0.001 * rng.random(),
        "training/entropy": 0.3 - 0.19 * done + 0.01 * rng.random(),
        "training/clip_fraction": 0.01 * rng.random(),
        "training/gradient_norm": 0.3 + 0.2 * rng.random(),
        "training/learning_rate": 3e-4,
        "parity/max_logprob_difference": 10 ** (-5.7 + 0.4 * rng.random()),
        "experts/imbalance/0": 1.2 + 0.1 * rng.random(),
        "experts/imbalance/1": 1.4 + 0.3 * done + 0.1 * rng.random(),
        "speed/seconds_per_step": wall,
        "speed/tokens_per_second": tokens / wall,
        **{f"seconds/{name}": value for name, value in seconds.items()},
    }


def example_samples(final: bool) -> list[SampleView]:
    samples = []
    for number in range(4):
        right = final or number == 2
        chain = "start 3 ; a plus 4 is 7 ; b times 7 is 9 ; c minus 2 is 7 ;" if final else "故 4 ;"
        answer = "7" if right else "4"
        samples.append(
            SampleView(
                prompt_id=f"held-out-{number}",
                prompt=f"{number} a + 4 b * 7 c - 2 = ?",
                response=f"<think> {chain} </think> <answer> {answer} </answer>",
                answer="7",
                verdicts={
                    "accuracy": Verdict(float(right), "right" if right else "wrong"),
                    "format": Verdict(1.0, "right"),
                    "language": Verdict(float(final), "graded"),
                },
                reward=1.0 + right + final,
            )
        )
    return samples


def example_report() -> Report:
    lines = example_lines()
    return Report(
        title="R1-Zero, quickstart, seed 1",
        lines=lines,
        summary=summarize(lines, BASE, FINAL, seed=1),
        settings={
            "seed": 1,
            "optimizer": {"lr": 3e-4, "betas": [0.9, 0.95]},
            "grpo": {"clip": 0.2, "kl_coefficient": 0.001},
        },
        environment={"packages": {"torch": "2.13.0", "apex": None}, "cpu_count": 2},
        base=BASE,
        final=FINAL,
        first_samples=example_samples(final=False),
        last_samples=example_samples(final=True),
    )
