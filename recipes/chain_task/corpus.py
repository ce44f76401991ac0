"""The base model's corpus: two endless streams of problems with answers.

Document i is a pure function of (stage, seed, i): no process layout, and no place at which a run
was resumed, changes it. None of them is about a held-out problem.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import Literal

from pydantic import Field

from engine.config.section import Section
from recipes.chain_task.answers import AnswerStyle, Routes, write_answer
from recipes.chain_task.problems import ProblemsConfig, draw_problem, is_held_out
from recipes.chain_task.vocabulary import encode

Stage = Literal["textbook", "web"]


class CorpusConfig(Section):
    """The problems, and the answers of the two stages.

    From the textbook the model learns single steps, which it does not learn from the web, where
    most answers are guesses; from the web it then learns to guess.
    """

    problems: ProblemsConfig = ProblemsConfig()
    textbook: AnswerStyle = Field(
        AnswerStyle(routes=Routes(guess=0.10, three=0.05, two=0.15, one=0.70), self_check=0.10),
        description="mostly full traces",
    )
    web: AnswerStyle = Field(
        AnswerStyle(routes=Routes(guess=0.45, three=0.12, two=0.35, one=0.08), self_check=0.14),
        description="mostly guesses and long steps",
    )


@dataclass(frozen=True, slots=True)
class Document:
    """A problem and an answer as token ids: ``<bos> ... = ?`` and ``... <eos>``."""

    prompt_tokens: list[int]
    tokens: list[int]


class Corpus:
    """One stage of the corpus; documents are numbered from 0 and there is no last one."""

    def __init__(self, config: CorpusConfig, stage: Stage, *, seed: int) -> None:
        self._problems = config.problems
        self._style: AnswerStyle = getattr(config, stage)
        name = f"corpus, stage: {stage}, seed: {seed}"
        self._stream = int.from_bytes(blake2b(name.encode(), digest_size=16).digest(), "big") << 64

    def document(self, index: int) -> Document:
        """Return document ``index``, counted from 0."""
        draw = Random(self._stream + index).random
        problem = draw_problem(draw, self._problems)
        while is_held_out(problem, self._problems):
            problem = draw_problem(draw, self._problems)
        answer = write_answer(problem, self._style, draw)
        return Document(encode(problem.words), encode(answer))

    def sample(self, index: int) -> tuple[list[int], list[int]]:
        """Return document ``index`` as a loader's ``Source`` gives it: prompt and response."""
        document = self.document(index)
        return document.prompt_tokens, document.tokens
