from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.rewards.accuracy import answer_in
from engine.rewards.format import score_format
from engine.rewards.score import RIGHT
from recipes.chain_task.answers import AnswerStyle, Routes, attempt, full_trace, write_answer
from recipes.chain_task.corpus import CorpusConfig
from recipes.chain_task.problems import LABELS, Problem, ProblemsConfig, apply, draw_problem
from recipes.chain_task.statistics import mixes_languages, self_checks
from recipes.chain_task.vocabulary import CHINESE, ENGLISH, LANGUAGES, TOKEN_OF, Language

ONE = Routes(guess=0, three=0, two=0, one=1)
HONEST = AnswerStyle(routes=ONE, self_check=0.2, check_routes=ONE, slip=0)

seeds = st.integers(0, 10**6)
languages = st.sampled_from(LANGUAGES)


def problem_of(seed: int) -> Problem:
    return draw_problem(Random(seed).random, ProblemsConfig())


def read_steps(words: list[str], problem: Problem) -> list[tuple[str, int, int]]:
    """Read a full trace back: (symbol, operand, stated result) per step."""
    symbols = {word: s for language in LANGUAGES for s, word in language.operation.items()}
    chunks = " ".join(words).split(" ; ")
    assert chunks[0].split() in [[language.start, str(problem.first)] for language in LANGUAGES]
    steps = []
    for label, chunk in zip(LABELS, chunks[1 : len(problem.operations) + 1], strict=False):
        found, operation, operand, equals, result = chunk.split()[:5]
        assert found == label and equals in (ENGLISH.equals, CHINESE.equals)
        steps.append((symbols[operation], int(operand), int(result)))
    return steps


@given(seeds, languages)
def test_without_slips_every_full_trace_ends_in_the_arithmetic(seed: int, spoken: Language) -> None:
    problem = problem_of(seed)
    words, result, _ = attempt(problem, 1, spoken, HONEST, Random(seed).random)
    assert result == problem.answer
    value = problem.first
    steps = read_steps(words, problem)
    assert [(symbol, operand) for symbol, operand, _ in steps] == list(problem.operations)
    for symbol, operand, stated in steps:
        value = apply(symbol, value, operand)
        assert stated == value


@given(seeds, st.sampled_from([2, 3]), languages)
def test_without_slips_longer_steps_end_there_too(
    seed: int, operations: int, spoken: Language
) -> None:
    problem = problem_of(seed)
    words, result, _ = attempt(problem, operations, spoken, HONEST, Random(seed).random)
    assert result == problem.answer
    stated = sum(word in (ENGLISH.equals, CHINESE.equals) for word in words)
    assert stated == -(-len(problem.operations) // operations)


@given(seeds)
def test_without_slips_every_answer_is_right(seed: int) -> None:
    problem = problem_of(seed)
    words = write_answer(problem, HONEST, Random(seed).random)
    assert words[-1] == "<eos>"
    text = " ".join(words[:-1])
    final = answer_in(text) if score_format(text) == RIGHT else words[-2]
    assert final == str(problem.answer)


def test_a_slip_is_carried_on() -> None:
    careless = HONEST.model_copy(update={"slip": 0.3})
    slips = steps_seen = 0
    for seed in range(500):
        problem = problem_of(seed)
        words, result, _ = attempt(problem, 1, ENGLISH, careless, Random(seed).random)
        value = problem.first
        for symbol, operand, stated in read_steps(words, problem):
            slips += stated != apply(symbol, value, operand)  # of the result before, right or not
            steps_seen += 1
            value = stated
        assert result == value
    assert abs(slips / steps_seen - 0.3 * 0.9) < 0.03  # a random digit is right one time in ten


@given(seeds, st.sampled_from(["textbook", "web"]))
def test_every_word_is_in_the_vocabulary(seed: int, stage: str) -> None:
    words = write_answer(problem_of(seed), getattr(CorpusConfig(), stage), Random(seed).random)
    assert set(words) <= set(TOKEN_OF)


@given(seeds, languages)
def test_the_full_trace_is_right_well_formed_and_in_one_language(
    seed: int, spoken: Language
) -> None:
    problem = problem_of(seed)
    *words, eos = full_trace(problem, spoken)
    text = " ".join(words)
    assert eos == "<eos>"
    assert score_format(text) == RIGHT
    assert answer_in(text) == str(problem.answer)
    assert not mixes_languages(text) and not self_checks(text)
    assert read_steps(words[1:], problem)[-1][2] == problem.answer


def test_answers_read_as_documented() -> None:
    problem = Problem(3, (("+", 4), ("*", 7), ("-", 2)))
    assert " ".join(full_trace(problem, ENGLISH)) == (
        "<think> start 3 ; a plus 4 is 7 ; b times 7 is 9 ; c minus 2 is 7 ; </think>"
        " <answer> 7 </answer> <eos>"
    )
    plain = HONEST.model_copy(update={"switch_language": 0.0})
    two = attempt(problem, 2, CHINESE, plain, Random(0).random)
    assert " ".join(two.words) == "始 3 ; a 加 4 b 乘 7 得 9 ; c 减 2 得 7 ;"
    knows = plain.model_copy(update={"guess_right": 1.0})
    assert attempt(problem, 0, ENGLISH, knows, Random(0).random).words == ["so", "7", ";"]


def test_the_mix_is_as_configured() -> None:
    style = CorpusConfig().web
    draw = Random(3).random
    count = 20_000
    answers = [write_answer(problem_of(number), style, draw) for number in range(count)]
    shares = {
        "self-check": sum(self_checks(" ".join(words)) for words in answers) / count,
        "tags": sum(words[0] == "<think>" for words in answers) / count,
        "guess": sum(words[words[0] == "<think>"] in ("so", "故") for words in answers) / count,
    }
    expected = {"self-check": 0.14, "tags": 0.5, "guess": 0.45}
    assert all(abs(shares[name] - share) < 0.012 for name, share in expected.items()), shares


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((0.1, 0.05, 0.15, 0.7), {0: 0.1, 3: 0.05, 2: 0.15, 1: 0.7}),
        ((9, 0, 0, 0), {0: 1}),
        ((0, 1, 3, 0), {3: 0.25, 2: 0.75}),
    ],
)
def test_routes_are_drawn_by_weight(weights: tuple[float, ...], expected: dict[int, float]) -> None:
    routes = Routes(**dict(zip(("guess", "three", "two", "one"), weights, strict=True)))
    draw = Random(0).random
    drawn = Counter(routes.draw(draw) for _ in range(10_000))
    assert drawn.keys() == expected.keys()
    assert all(abs(drawn[kind] / 10_000 - share) < 0.02 for kind, share in expected.items())
    assert routes.draw(lambda: 1 - 2**-53) in expected


def test_routes_without_a_weight_are_refused() -> None:
    with pytest.raises(ValidationError, match="a weight above 0"):
        Routes(guess=0, three=0, two=0, one=0)
