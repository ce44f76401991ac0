"""summary.json: what came out of a run, in a few numbers measured in that run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from engine.monitoring import metric_names as names


@dataclass(frozen=True)
class EvaluationResult:
    """Means over all answers to the held-out problems at one version of the weights."""

    version: int  # updates before it
    problems: int
    samples: int  # answers, several per problem where more than one was sampled
    accuracy: float  # pass@1: share of right answers
    format_rate: float
    response_length: float  # tokens

    @property
    def accuracy_error(self) -> float:
        """The standard error of ``accuracy`` (binomial, over problems: answers to one agree)."""
        return float((self.accuracy * (1.0 - self.accuracy) / self.problems) ** 0.5)


def summarize(
    lines: Sequence[Mapping[str, Any]],
    base: EvaluationResult,
    final: EvaluationResult,
    seed: int,
) -> dict[str, Any]:
    """Return the content of summary.json.

    Args:
        lines: those of metrics.jsonl; one that has no seconds per step is no training step (the
            last evaluation comes after the last step). How GPUs were used is the mean over steps,
            None where no line tells.
        base: the evaluation before the first update.
        final: the evaluation after the last one.
        seed: the run's.
    """
    training = [line for line in lines if line.get(names.STEP_SECONDS) is not None]
    seconds = sum(line[names.STEP_SECONDS] for line in training)
    tokens = sum(line.get(names.RESPONSE_TOKENS) or 0 for line in training)
    utilisation = {
        key: _mean(training, name)
        for key, name in (
            ("mfu_update", names.MFU_UPDATE),
            ("mfu_step", names.MFU_STEP),
            ("trained_tokens_per_second_per_gpu", names.TRAINED_TOKENS_PER_GPU),
        )
    }
    differences = _all(lines, names.MAX_LOGPROB_DIFFERENCE)
    return {
        "base_accuracy": base.accuracy,
        "final_accuracy": final.accuracy,
        "base_response_length": base.response_length,
        "final_response_length": final.response_length,
        "base_format_rate": base.format_rate,
        "format_rate": final.format_rate,
        "evaluation_problems": final.problems,
        "steps": len(training),
        "seconds": round(seconds, 3),
        "seconds_by_phase": seconds_by_phase(training),
        "tokens_per_second": tokens / seconds if seconds else None,
        **utilisation,
        "max_logprob_difference": max(differences, default=None),
        "behind_routing_ties": _mean(lines, names.BEHIND_ROUTING_TIES),
        "seed": seed,
    }


def _all(lines: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """Every line's value of a metric, where it has one."""
    return [line[name] for line in lines if line.get(name) is not None]


def _mean(lines: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Mean over the lines that have a metric, None where none has it."""
    found = _all(lines, name)
    return fmean(found) if found else None


def seconds_by_phase(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the seconds of each phase over all ``lines``, the longest phase first."""
    total: dict[str, float] = {}
    for line in lines:
        for phase, seconds in names.with_prefix(line, names.SECONDS_PREFIX).items():
            total[phase] = total.get(phase, 0.0) + (seconds or 0.0)
    longest_first = sorted(total.items(), key=lambda item: -item[1])
    return {phase: round(seconds, 3) for phase, seconds in longest_first}
