from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes.chain_task.gate import forced_trace
from recipes.chain_task.problems import LABELS, Problem, ProblemsConfig, draw_problem
from recipes.chain_task.vocabulary import CHINESE, ENGLISH, LANGUAGES, WORDS, Language

PROBLEM = Problem(3, (("+", 4), ("*", 7), ("-", 2)))


def test_the_tokens_that_the_problem_determines_are_marked() -> None:
    trace = forced_trace(PROBLEM, ENGLISH)
    assert " ".join(WORDS[token] for token in trace.tokens) == (
        "<think> start 3 ; a plus 4 is 7 ; b times 7 is 9 ; c minus 2 is 7 ; </think>"
        " <answer> 7 </answer> <eos>"
    )
    marked = [
        WORDS[token]
        for token, determined in zip(trace.tokens, trace.determined, strict=True)
        if determined
    ]
    assert " ".join(marked) == "3 a 4 7 b 7 9 c 2 7 7"
    assert (
        " ".join(WORDS[token] for token in trace.prompt_tokens) == "<bos> 3 a + 4 b * 7 c - 2 = ?"
    )


@given(st.integers(0, 10**6), st.sampled_from(LANGUAGES))
def test_label_operand_and_result_of_every_step_and_the_two_ends_are_marked(
    seed: int, language: Language
) -> None:
    problem = draw_problem(Random(seed).random, ProblemsConfig())
    trace = forced_trace(problem, language)
    assert len(trace.determined) == len(trace.tokens)
    assert sum(trace.determined) == 3 * len(problem.operations) + 2
    marked = {
        WORDS[token]
        for token, determined in zip(trace.tokens, trace.determined, strict=True)
        if determined
    }
    assert marked <= {*"0123456789", *LABELS}


@pytest.mark.parametrize(("language", "start"), [(ENGLISH, "start"), (CHINESE, "始")])
def test_the_language_is_as_asked(language: Language, start: str) -> None:
    assert WORDS[forced_trace(PROBLEM, language).tokens[1]] == start
