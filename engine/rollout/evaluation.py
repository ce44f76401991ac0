"""What a stored evaluation says of a policy; pure over samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from engine.rollout.sample import Sample


@dataclass(frozen=True)
class Evaluation:
    """Means over held-out prompts, each counted the same whatever its number of samples."""

    prompts: int
    samples: int
    accuracy: float  # pass@1: the probability that one sample is right
    response_length: float  # tokens, the end-of-sequence token included
    format_rate: float  # of the samples that are laid out as the template asks


def evaluate(samples: Sequence[Sample]) -> Evaluation:
    """Summarise the samples of one evaluation, k per prompt.

    Accuracy is pass@1 estimated from k samples: the mean over prompts of the share of right ones
    (DeepSeek-R1, arXiv 2501.12948, section 3, "Evaluation Setup"). A sample is right, or well
    formed, when the outcome of that reward is ``right``; a timeout or crash of a verifier is not.

    Raises:
        ValueError: there are no samples.
        KeyError: they were not scored by the rewards ``accuracy`` and ``format``.
    """
    if not samples:
        raise ValueError("an evaluation without samples has no accuracy")
    groups: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.group].append(sample)

    def mean(of: Callable[[Sample], float]) -> float:
        return fmean(fmean(map(of, group)) for group in groups.values())

    return Evaluation(
        prompts=len(groups),
        samples=len(samples),
        accuracy=mean(lambda sample: sample.scores["accuracy"].outcome == "right"),
        response_length=mean(lambda sample: len(sample.tokens)),
        format_rate=mean(lambda sample: sample.scores["format"].outcome == "right"),
    )
