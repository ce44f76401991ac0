"""An evaluation counts every prompt the same, and every reward that scored the samples."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_samples import make_group

from engine.rewards.score import CRASH, RIGHT, TIMEOUT, UNPARSABLE, WRONG, Score, graded
from engine.rollout.evaluation import evaluate
from engine.rollout.sample import Sample


def group_of(group: int, lengths: list[int], **scores: list[Score]) -> list[Sample]:
    return [
        replace(
            sample,
            scores={name: given[i] for name, given in scores.items()},
            tokens=[5] * lengths[i],
            logprobs=[-1.0] * lengths[i],
        )
        for i, sample in enumerate(make_group(group, len(lengths), version=3))
    ]


def values(samples: list[Sample]) -> dict[str, float]:
    return {name: measure.value for name, measure in evaluate(samples).rewards.items()}


def test_a_measure_is_the_mean_over_prompts_of_what_a_reward_says_of_the_samples():
    samples = [
        *group_of(0, [10, 20], accuracy=[RIGHT, WRONG], language=[graded(0.5), graded(0.75)]),
        *group_of(1, [1] * 4, accuracy=[RIGHT] * 4, language=[graded(0.25)] * 4),
    ]
    found = evaluate(samples)
    assert (found.version, found.problems, found.samples) == (3, 2, 6)
    assert found.response_length == 8.0
    assert values(samples) == {"accuracy": 0.75, "language": 0.4375}
    assert not found.rewards["accuracy"].graded and found.rewards["language"].graded


def test_only_right_is_right_whatever_the_value():
    verdicts = [WRONG, UNPARSABLE, TIMEOUT, CRASH, Score(0.5, "wrong")]
    samples = group_of(0, [3] * 5, accuracy=verdicts, format=[Score(0.5, "right")] * 5)
    assert values(samples) == {"accuracy": 0.0, "format": 1.0}


def test_a_reward_that_grades_counts_its_values_also_where_it_could_not_judge():
    samples = group_of(0, [3] * 4, **{"my.own": [graded(-2.0), graded(1.0), UNPARSABLE, CRASH]})
    assert values(samples) == {"my.own": -0.25}


def test_a_reward_that_grades_is_known_by_a_single_graded_answer_of_value_zero():
    assert evaluate(group_of(0, [1], language=[graded(0.0)])).rewards["language"].graded


def test_one_problem_has_no_standard_error():
    samples = group_of(0, [3] * 4, accuracy=[RIGHT, WRONG, RIGHT, RIGHT])
    found = evaluate(samples).rewards["accuracy"]
    assert (found.value, found.error) == (0.75, None)


def test_the_error_is_the_binomial_one_where_each_problem_has_one_answer():
    """With n - 1, as the spread around a mean that was estimated from the same problems."""
    verdicts = [RIGHT] * 3 + [WRONG] * 13
    groups = [group_of(number, [1], accuracy=[one])[0] for number, one in enumerate(verdicts)]
    share = 3 / 16
    error = (share * (1 - share) / 15) ** 0.5
    assert evaluate(groups).rewards["accuracy"].error == pytest.approx(error)


def test_answers_to_one_problem_that_agree_make_an_error_no_smaller():
    once = [*group_of(0, [1], accuracy=[RIGHT]), *group_of(1, [1], accuracy=[WRONG])]
    often = [
        *group_of(0, [1] * 8, accuracy=[RIGHT] * 8),
        *group_of(1, [1] * 8, accuracy=[WRONG] * 8),
    ]
    assert evaluate(often).rewards == evaluate(once).rewards


def test_nothing_to_evaluate_is_refused():
    with pytest.raises(ValueError, match=r"one weight version, found \[\]"):
        evaluate([])
    with pytest.raises(ValueError, match=r"found \[3, 4\]"):
        evaluate([*group_of(0, [1], accuracy=[RIGHT]), *make_group(1, version=4)])


def test_samples_that_no_reward_scored_have_a_length_all_the_same():
    assert evaluate(group_of(0, [4, 6])).rewards == {}
    assert evaluate(group_of(0, [4, 6])).response_length == 5.0
