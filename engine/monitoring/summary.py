"""Content of summary.json: a run's results in a few numbers measured in that run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from engine.monitoring import metric_names as names


@dataclass(frozen=True)
class Measure:
    """What one reward says of all answers to the held-out problems."""

    value: float  # share of answers that it finds right (pass@1); of one that grades, mean value
    error: float | None  # standard error of ``value``, over problems (answers to one agree); None
    # for one problem
    graded: bool = False

    @property
    def what(self) -> str:
        """What ``value`` is, in words."""
        return "mean value" if self.graded else "share right"

    @property
    def shown(self) -> str:
        """``value`` in a sentence: ``12.5 %`` or, of a reward that grades, ``0.125``."""
        return f"{self.value:.3f}" if self.graded else f"{100 * self.value:.1f} %"


@dataclass(frozen=True)
class EvaluationResult:
    """Means over the held-out problems at one version of the weights, each counted the same."""

    version: int  # updates before it
    problems: int
    samples: int  # answers, several per problem where more than one was sampled
    rewards: Mapping[str, Measure]  # by the reward's name
    response_length: float  # tokens, the end-of-sequence token included


@dataclass(frozen=True)
class Compared:
    """One line of a comparison of two evaluations, its numbers as they are shown."""

    name: str  # of the reward; empty for the response length
    what: str  # share right, mean value, mean response in tokens
    base: str
    final: str
    change: str
    errors: tuple[str, str] | None = None  # standard errors of base and final, if both have one


def compare(base: EvaluationResult, final: EvaluationResult) -> list[Compared]:
    """Return a line for each reward that both evaluations have, and one for the response length."""
    lines = []
    for name, first in base.rewards.items():
        if last := final.rewards.get(name):
            numbers = _compared(first.value, last.value, digits=3)
            lines.append(Compared(name, last.what, *numbers, _errors(first, last)))
    lengths = _compared(base.response_length, final.response_length, digits=1)
    return [*lines, Compared("", "mean response, tokens", *lengths)]


def _errors(base: Measure, final: Measure) -> tuple[str, str] | None:
    if base.error is None or final.error is None:
        return None
    return f"{base.error:.3f}", f"{final.error:.3f}"


def _compared(base: float, final: float, digits: int) -> tuple[str, str, str]:
    # The change is that of the numbers as shown, so that the line adds up.
    change = round(final, digits) - round(base, digits)
    return f"{base:.{digits}f}", f"{final:.{digits}f}", f"{change:+.{digits}f}"


def summarize(
    lines: Sequence[Mapping[str, Any]],
    base: EvaluationResult | None,
    final: EvaluationResult,
    seed: int,
) -> dict[str, Any]:
    """Return the content of summary.json; of every reward ``base_<name>`` and ``final_<name>``.

    Args:
        lines: those of metrics.jsonl; time and speed are of those that have seconds: replayed steps
            have none, nor has the last evaluation, which comes after the last step. How GPUs were
            used is the mean over steps, None where no line tells.
        base: the evaluation before the first update; None where there is none to compare with.
        final: the evaluation after the last one.
        seed: the run's.
    """
    timed = [line for line in lines if line.get(names.STEP_SECONDS) is not None]
    seconds = sum(line[names.STEP_SECONDS] for line in timed)
    tokens = sum(line.get(names.RESPONSE_TOKENS) or 0 for line in timed)
    utilisation = {
        key: _mean(timed, name)
        for key, name in (
            ("mfu_update", names.MFU_UPDATE),
            ("mfu_step", names.MFU_STEP),
            ("trained_tokens_per_second_per_gpu", names.TRAINED_TOKENS_PER_GPU),
        )
    }
    skipped = _all(lines, names.SKIPPED_MINIBATCHES)
    differences = _all(lines, names.MAX_LOGPROB_DIFFERENCE)
    return {
        **(
            {f"base_{name}": measure.value for name, measure in base.rewards.items()}
            if base
            else {f"base_{name}": None for name in final.rewards}
        ),
        **{f"final_{name}": measure.value for name, measure in final.rewards.items()},
        "base_response_length": base.response_length if base else None,
        "final_response_length": final.response_length,
        "evaluation_problems": final.problems,
        "steps": final.version,
        "replayed_steps": sum(names.REPLAYED in line for line in lines),
        "seconds": round(seconds, 3),
        "seconds_by_phase": seconds_by_phase(timed),
        "tokens_per_second": tokens / seconds if seconds else None,
        **utilisation,
        "max_logprob_difference": max(differences, default=None),
        "behind_routing_ties": _mean(lines, names.BEHIND_ROUTING_TIES),
        **({"skipped_minibatches": int(skipped[-1])} if skipped else {}),
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
