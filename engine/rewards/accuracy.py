"""Accuracy reward: compare the content of ``<answer>`` with the reference answer.

In two parts. :func:`score_plain` settles what can be settled by reading: no answer, plain numbers,
equal text; it costs microseconds and may run anywhere. Whatever it leaves open is mathematics in
LaTeX, and :func:`score` hands it to math-verify. That may take for ever (``9^{9^{9^9}}``) or all
memory, so :func:`prepare` and :func:`score` are only called in a worker of
:class:`engine.rewards.workers.WorkerPool`, which can be killed.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, PrivateAttr

from engine.config.section import Seconds
from engine.rewards.reward import Answer, Reward
from engine.rewards.score import RIGHT, UNPARSABLE, WRONG, Score

if TYPE_CHECKING:
    from engine.rewards.workers import WorkerPool

_PLAIN_NUMBER = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?")  # linear: no two loops overlap
_MATH_DELIMITERS = ("$", r"\(", r"\[", r"\boxed")


class AccuracyReward(Reward):
    """Is the answer right? Decided by killable workers, because verifiers can hang."""

    deadline_seconds: Seconds = Field(
        5.0, description="a verification is killed after this many seconds: outcome timeout"
    )
    workers: int = Field(2, ge=1, description="verifying processes")
    _pool: WorkerPool | None = PrivateAttr(None)

    async def __aenter__(self) -> Self:
        from engine.rewards.workers import WorkerPool  # asyncio: not for who only reads options

        pool = WorkerPool(__name__, workers=self.workers, deadline_seconds=self.deadline_seconds)
        self._pool = await pool.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._pool is not None:
            await self._pool.close()

    def hopeless(self, asked: str, reference: str) -> str | None:
        """See :class:`Reward`: a whole solution as GSM8K has it is equal to no answer."""
        _, marked, final = reference.rpartition("####")
        if not marked:
            return None
        return f"the reference is a whole solution; expected what is behind ####: {final.strip()!r}"

    async def score(self, answer: Answer) -> Score:
        """Return the verdict, from a worker where reading does not settle it.

        Raises RunError if a worker cannot be started any more.
        """
        plain = score_plain(answer.response, answer.reference)
        if plain is not None:
            return plain
        assert self._pool is not None, "score is called within the async with block"
        return await self._pool.score(answer.response, answer.reference)


REWARD = AccuracyReward


def answer_in(response: str) -> str | None:
    """Return what stands between the one ``<answer>`` and the one ``</answer>``, stripped.

    None if either tag is missing or occurs twice, if they are in the wrong order, or if there is
    nothing but whitespace between them.
    """
    if response.count("<answer>") != 1 or response.count("</answer>") != 1:
        return None
    _, _, rest = response.partition("<answer>")
    content, closed, _ = rest.partition("</answer>")
    return (content.strip() or None) if closed else None


def score_plain(response: str, reference: str) -> Score | None:
    """Return the verdict if reading is enough for it, None if the answer needs :func:`score`.

    Two integers or decimals are compared by value (007 = 7.0), whatever their length. Several
    numbers with only space between them are no answer: math-verify would add them up.
    """
    answer = answer_in(response)
    if answer is None:
        return UNPARSABLE
    if answer == reference.strip():
        return RIGHT
    words = answer.split()
    if len(words) > 1 and all(_number(word) is not None for word in words):
        return UNPARSABLE
    number, wanted = _number(answer), _number(reference.strip())
    if number is None or wanted is None:
        return None
    return RIGHT if number == wanted else WRONG


def _number(text: str) -> tuple[str, str, str] | None:
    """Sign, integer digits and fractional digits of a plain number, each without idle zeros.

    Digits are compared as text because Python refuses integers of more than 4,300 digits.
    """
    match = _PLAIN_NUMBER.fullmatch(text)
    if match is None or not any(character.isdigit() for character in text):
        return None
    sign, integer, fraction = match.group(1), match.group(2), match.group(3) or ""
    integer, fraction = integer.lstrip("0"), fraction.rstrip("0")
    return ("-" if sign == "-" and (integer or fraction) else "", integer, fraction)


def prepare() -> None:
    """Import math-verify and take its first, slow steps (about 1 s), before any deadline runs."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that we set the deadline
    for left, right in ((r"\frac{1}{2}", "0.5"), ("x + 1", "1 + x"), (r"\sqrt{8}", r"2\sqrt{2}")):
        _verify(left, right)


def score(response: str, reference: str) -> Score:
    """Compare the answer with the reference by math-verify; call :func:`prepare` once before.

    Only in a worker process: nothing bounds its time and memory here, and math-verify's own time
    limit (SIGALRM, which it silently turns into a wrong answer) is off.

    Raises whatever math-verify and sympy raise; the worker makes it a crash.
    """
    plain = score_plain(response, reference)
    if plain is not None:
        return plain
    answer = answer_in(response)
    assert answer is not None  # score_plain calls that unparsable
    return _verify(answer, reference)


def _verify(answer: str, reference: str) -> Score:
    from math_verify import verify

    parsed = _parse(answer)
    if not parsed:
        return UNPARSABLE
    equal = verify(_parse(reference), parsed, timeout_seconds=None, raise_on_error=True)
    return RIGHT if equal else WRONG


def _parse(text: str) -> list[Any]:
    """Parse one LaTeX expression; an empty list if it is none.

    Text without a mark of mathematics is read as a whole, as if boxed. Otherwise math-verify would
    search it for the last number: 2 in ``2\\sqrt{2}``, 7 in ``1, 2, 3, 7``, a reward for listing.
    """
    from math_verify import LatexExtractionConfig, parse

    if not any(mark in text for mark in _MATH_DELIMITERS):
        text = rf"\boxed{{{text}}}"
    parsed: list[Any] = parse(
        text,
        extraction_config=[LatexExtractionConfig()],
        fallback_mode="no_fallback",
        parsing_timeout=None,
        raise_on_error=True,
    )
    return parsed
