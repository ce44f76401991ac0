"""Write answers of the base corpus: guesses, long steps, full steps, self-checks, slips.

Most answers state fewer results than they compute, some mix two languages, and some are wrong: a
full trace, which the policy later learns to write reliably, is in the corpus, but not the rule.
"""

from __future__ import annotations

from typing import NamedTuple

from pydantic import Field, ValidationInfo, field_validator

from engine.config.section import Section
from recipes.chain_task.problems import LABELS, Draw, Problem, apply
from recipes.chain_task.vocabulary import CHINESE, ENGLISH, EOS, LANGUAGES, Language


class Routes(Section):
    """Relative weights of the kinds of attempts.

    Kinds differ in how many operations go into one stated result.
    """

    guess: float = Field(ge=0, description="no step at all: so 7 ;")
    three: float = Field(ge=0, description="a plus 4 b times 7 c minus 2 is 7 ;")
    two: float = Field(ge=0, description="a plus 4 b times 7 is 9 ;")
    one: float = Field(ge=0, description="a plus 4 is 7 ; the full trace, the only one to trust")

    @field_validator("one")
    @classmethod
    def _one_is_not_the_fourth_zero(cls, one: float, info: ValidationInfo) -> float:
        if not one and not any(info.data.values()):
            raise ValueError("expected a weight above 0 for one of the kinds, found none")
        return one

    def draw(self, draw: Draw) -> int:
        """Return the operations per stated result: 0 (a guess), 3, 2 or 1."""
        point = draw() * (self.guess + self.three + self.two + self.one)
        kinds = ((0, self.guess), (3, self.three), (2, self.two), (1, self.one))
        chosen = 0
        for operations, weight in kinds:
            if weight:  # the last kind with a weight takes what rounding leaves over
                chosen = operations
                if point < weight:
                    break
                point -= weight
        return chosen


class AnswerStyle(Section):
    """Options of written answers; all but the routes are probabilities."""

    routes: Routes = Field(description="kinds of the first attempt")
    self_check: float = Field(ge=0, le=1, description="a second attempt follows, after 'wait'")
    check_routes: Routes = Field(
        Routes(guess=0, three=0, two=0.1, one=0.9), description="kinds of the second attempt"
    )
    slip: float = Field(
        0.03, ge=0, le=1, description="a stated result is a random digit, and carried on"
    )
    switch_language: float = Field(0.3, ge=0, le=1, description="per step, and at a self-check")
    tags: float = Field(0.5, ge=0, le=1, description="think and answer tags; else: so 7")
    guess_right: float = Field(
        0.5, ge=0, le=1, description="the author of a guess knows; else a random digit"
    )


class Attempt(NamedTuple):
    """One attempt at a problem: its words, its last digit and its last language."""

    words: list[str]
    result: int
    language: Language


def write_answer(problem: Problem, style: AnswerStyle, draw: Draw) -> list[str]:
    """Write one answer to the problem, ``<eos>`` included."""
    language = LANGUAGES[int(draw() * 2)]
    words, result, language = attempt(problem, style.routes.draw(draw), language, style, draw)
    if draw() < style.self_check:
        language = _maybe_switched(language, style, draw)
        second = attempt(problem, style.check_routes.draw(draw), language, style, draw)
        words = [*words, language.wait, *second.words]
        result, language = second.result, second.language
    if draw() < style.tags:
        return in_tags(words, result)
    return [*words, language.so, str(result), EOS]


def in_tags(words: list[str], result: int) -> list[str]:
    """Return thoughts and result in the tags that the format reward asks for."""
    return ["<think>", *words, "</think>", "<answer>", str(result), "</answer>", EOS]


def attempt(
    problem: Problem, operations: int, language: Language, style: AnswerStyle, draw: Draw
) -> Attempt:
    """Write one attempt with so many operations per stated result (0: a guess)."""
    if operations == 0:
        known = draw() < style.guess_right
        result = problem.answer if known else int(draw() * 10)
        return Attempt([language.so, str(result), ";"], result, language)
    result = problem.first
    words = [language.start, str(result), ";"]
    left = operations
    last = len(problem.operations) - 1
    for place, (symbol, operand) in enumerate(problem.operations):
        if left == operations:
            language = _maybe_switched(language, style, draw)
        words += (LABELS[place], language.operation[symbol], str(operand))
        result = apply(symbol, result, operand)
        left -= 1
        if left == 0 or place == last:
            if draw() < style.slip:
                result = int(draw() * 10)
            words += (language.equals, str(result), ";")
            left = operations
    return Attempt(words, result, language)


def full_trace(problem: Problem, language: Language) -> list[str]:
    """Write the answer that states every result, in one language, without a slip, in tags."""
    words = [language.start, str(problem.first), ";"]
    result = problem.first
    for label, (symbol, operand) in zip(LABELS, problem.operations, strict=False):
        result = apply(symbol, result, operand)
        words += (label, language.operation[symbol], str(operand))
        words += (language.equals, str(result), ";")
    return in_tags(words, result)


def _maybe_switched(language: Language, style: AnswerStyle, draw: Draw) -> Language:
    if draw() >= style.switch_language:
        return language
    return CHINESE if language is ENGLISH else ENGLISH
