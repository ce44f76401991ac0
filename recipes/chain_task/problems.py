"""Problems: a chain of + - x modulo 10, worked from left to right, each operation with a label.

``3 a + 4 b * 7 c - 2 = ?`` asks for (((3 + 4) * 7) - 2) mod 10. The labels a, b, c make the next
operand easy to find; x takes only 3, 7 and 9, which are invertible modulo 10, so that every digit
stays equally likely and a guess is right one time in ten.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from random import Random

from pydantic import Field, ValidationInfo, field_validator

from engine.config.section import Section
from engine.errors import RunError

Draw = Callable[[], float]
"""Uniform in [0, 1); ``Random.random``, the one method whose numbers Python promises to keep."""

LABELS = "abcdefghijk"
OPERANDS = {"+": tuple(range(10)), "-": tuple(range(10)), "*": (3, 7, 9)}
_SYMBOLS = tuple(OPERANDS)


class ProblemsConfig(Section):
    """Numbers of operations of the problems, and the share that is held out."""

    fewest_operations: int = Field(3, ge=1, le=len(LABELS), description="of a problem")
    most_operations: int = Field(7, ge=1, le=len(LABELS), description="of a problem")
    held_out_share: float = Field(
        0.05, gt=0, lt=1, description="share of all problems that only evaluation sees"
    )

    @field_validator("most_operations")
    @classmethod
    def _is_not_below_fewest(cls, most: int, info: ValidationInfo) -> int:
        fewest = info.data.get("fewest_operations", 1)
        if most < fewest:
            raise ValueError(f"expected at least fewest_operations ({fewest}), found {most}")
        return most


@dataclass(frozen=True, slots=True)
class Problem:
    """A first digit and operations (symbol, operand) to apply to it in order."""

    first: int
    operations: tuple[tuple[str, int], ...]

    @property
    def key(self) -> str:
        """The problem without spaces and labels, ``3+4*7-2``: its name in files."""
        return f"{self.first}" + "".join(f"{symbol}{right}" for symbol, right in self.operations)

    @property
    def words(self) -> list[str]:
        """The words of the prompt: ``<bos> 3 a + 4 b * 7 c - 2 = ?``."""
        words = ["<bos>", str(self.first)]
        for label, (symbol, operand) in zip(LABELS, self.operations, strict=False):
            words += (label, symbol, str(operand))
        return [*words, "=", "?"]

    @property
    def answer(self) -> int:
        """The digit that the chain ends in."""
        result = self.first
        for symbol, operand in self.operations:
            result = apply(symbol, result, operand)
        return result


def apply(symbol: str, left: int, right: int) -> int:
    """Return left + right, left - right or left x right, modulo 10."""
    if symbol == "+":
        return (left + right) % 10
    if symbol == "-":
        return (left - right) % 10
    return left * right % 10


def draw_problem(draw: Draw, config: ProblemsConfig) -> Problem:
    """Draw a problem: its length uniformly, then every digit, symbol and operand uniformly."""
    fewest, most = config.fewest_operations, config.most_operations
    length = fewest + int(draw() * (most - fewest + 1))
    first = int(draw() * 10)
    operations = []
    for _ in range(length):
        symbol = _SYMBOLS[int(draw() * 3)]
        operands = OPERANDS[symbol]
        operations.append((symbol, operands[int(draw() * len(operands))]))
    return Problem(first, tuple(operations))


def is_held_out(problem: Problem, config: ProblemsConfig) -> bool:
    """Return whether a problem is kept for evaluation.

    Depends on its hash alone: the same on every machine, in every run and whatever the seed.
    """
    digest = blake2b(problem.key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < config.held_out_share * 2**64


def different_problems(
    config: ProblemsConfig, *, held_out: bool, count: int, seed: int
) -> list[Problem]:
    """Draw ``count`` problems, no two alike, all of them held out or none of them.

    Raises RunError if fewer than twice as many exist (drawing the last ones would take for ever).
    """
    share = config.held_out_share if held_out else 1 - config.held_out_share
    lengths = range(config.fewest_operations, config.most_operations + 1)
    operations = sum(map(len, OPERANDS.values()))
    exist = int(share * sum(10 * operations**length for length in lengths))
    if exist < 2 * count:
        raise RunError(
            f"{count} different problems of {lengths[0]} to {lengths[-1]} operations are wanted,"
            f" but there are about {exist}; allow longer ones, or another held_out_share"
        )
    draw = Random(f"different problems, held out: {held_out}, seed: {seed}").random
    found: dict[Problem, None] = {}
    while len(found) < count:
        problem = draw_problem(draw, config)
        if is_held_out(problem, config) == held_out:
            found[problem] = None
    return list(islice(found, count))
