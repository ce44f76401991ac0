"""When an evaluation is due, and its results; pure over samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import fmean, stdev

from engine.config.sampler import EvaluationConfig
from engine.monitoring.summary import EvaluationResult, Measure
from engine.rewards.score import are_graded
from engine.rollout.sample import Sample


def is_due(step: int, config: EvaluationConfig) -> bool:
    """Return whether the weights before ``step`` are evaluated; those after the last one are."""
    return step % config.every == 0


def evaluate(samples: Sequence[Sample]) -> EvaluationResult:
    """Summarise the samples of one evaluation, k per prompt, by every reward that scored them.

    Of a reward that decides, the measure is pass@1 estimated from k samples: the mean over prompts
    of the share of right ones (DeepSeek-R1, arXiv 2501.12948 v1, section 3, "Evaluation Setup"). A
    sample is right when its outcome is ``right``; a timeout or crash of a verifier is not. Of a
    reward that grades (one of its verdicts is ``graded``), it is the mean over prompts of the mean
    value. Its standard error is the sample standard deviation (n - 1) of the n prompts' means,
    divided by the root of n; None for a single prompt.

    Raises:
        ValueError: there are no samples, or they are of several weight versions.
    """
    versions = {sample.weight_version for sample in samples}
    if len(versions) != 1:
        raise ValueError(f"expected samples of one weight version, found {sorted(versions)}")
    groups: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.group].append(sample)

    def means(of: Callable[[Sample], float]) -> list[float]:
        return [fmean(map(of, group)) for group in groups.values()]

    def measure(name: str) -> Measure:
        graded = are_graded(sample.scores[name] for sample in samples)

        def worth(sample: Sample) -> float:
            score = sample.scores[name]
            return score.value if graded else float(score.outcome == "right")

        found = means(worth)
        error = stdev(found) / len(found) ** 0.5 if len(found) > 1 else None
        return Measure(fmean(found), error, graded)

    return EvaluationResult(
        version=versions.pop(),
        problems=len(groups),
        samples=len(samples),
        rewards={name: measure(name) for name in samples[0].scores},
        response_length=fmean(means(lambda sample: len(sample.tokens))),
    )
