from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.errors import RunError
from recipes.chain_task.problems import (
    LABELS,
    OPERANDS,
    Problem,
    ProblemsConfig,
    different_problems,
    draw_problem,
    is_held_out,
)

CONFIG = ProblemsConfig()

operations = st.sampled_from(
    [(symbol, operand) for symbol, operands in OPERANDS.items() for operand in operands]
)
problems = st.builds(
    Problem, st.integers(0, 9), st.lists(operations, min_size=1, max_size=len(LABELS)).map(tuple)
)


def draws(count: int, config: ProblemsConfig = CONFIG, seed: int = 0) -> list[Problem]:
    draw = Random(seed).random
    return [draw_problem(draw, config) for _ in range(count)]


@given(problems)
def test_the_solver_agrees_with_an_independent_evaluation_of_the_prompt(problem: Problem) -> None:
    words = [word for word in problem.words if word not in {*LABELS, "<bos>", "=", "?"}]
    expression = "(" * len(words[1::2]) + words[0]
    for symbol, operand in zip(words[1::2], words[2::2], strict=True):
        expression += f"{symbol}{operand})"
    assert problem.answer == eval(expression) % 10  # noqa: S307  of our own words


def test_a_prompt_reads_as_documented() -> None:
    problem = Problem(3, (("+", 4), ("*", 7), ("-", 2)))
    assert " ".join(problem.words) == "<bos> 3 a + 4 b * 7 c - 2 = ?"
    assert problem.key == "3+4*7-2"
    assert problem.answer == 7


@given(problems, problems)
def test_different_problems_have_different_keys(left: Problem, right: Problem) -> None:
    assert (left.key == right.key) == (left == right)
    assert (left.words == right.words) == (left == right)


def test_drawn_problems_have_all_lengths_and_no_favourite_answer() -> None:
    drawn = draws(20_000)
    lengths = Counter(len(problem.operations) for problem in drawn)
    assert sorted(lengths) == [3, 4, 5, 6, 7]
    assert all(abs(count / 20_000 - 0.2) < 0.02 for count in lengths.values())
    answers = Counter(problem.answer for problem in drawn)
    assert all(abs(answers[digit] / 20_000 - 0.1) < 0.015 for digit in range(10))
    assert all(operand in OPERANDS[symbol] for one in drawn for symbol, operand in one.operations)


def test_the_held_out_share_is_kept() -> None:
    held_out = sum(is_held_out(problem, CONFIG) for problem in draws(20_000))
    assert abs(held_out / 20_000 - 0.05) < 0.01


def test_what_is_held_out_never_changes_between_machines_and_releases() -> None:
    held_out = [problem.key for problem in draws(100, seed=1) if is_held_out(problem, CONFIG)]
    assert held_out == ["2+2*7*7+7*3", "0+8+2*7+1+7+9", "8*7-2+8+7-9"]


@given(problems, st.floats(0.01, 0.5), st.floats(0.5, 0.99))
def test_a_larger_share_holds_out_the_same_problems_and_more(
    problem: Problem, small: float, large: float
) -> None:
    if is_held_out(problem, ProblemsConfig(held_out_share=small)):
        assert is_held_out(problem, ProblemsConfig(held_out_share=large))


@pytest.mark.parametrize("held_out", [True, False])
def test_different_problems_are_different_and_of_one_side(held_out: bool) -> None:
    found = different_problems(CONFIG, held_out=held_out, count=300, seed=5)
    assert len(set(found)) == 300
    assert all(is_held_out(problem, CONFIG) == held_out for problem in found)
    assert found == different_problems(CONFIG, held_out=held_out, count=300, seed=5)
    assert found != different_problems(CONFIG, held_out=held_out, count=300, seed=6)


def test_more_problems_than_there_are_is_an_error_not_an_endless_search() -> None:
    short = ProblemsConfig(fewest_operations=1, most_operations=1)  # 230 in all
    assert len(different_problems(short, held_out=False, count=100, seed=0)) == 100
    with pytest.raises(RunError, match="150 different problems of 1 to 1 operations"):
        different_problems(short, held_out=False, count=150, seed=0)


def test_lengths_that_cross_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"at least fewest_operations \(5\), found 4"):
        ProblemsConfig(fewest_operations=5, most_operations=4)
