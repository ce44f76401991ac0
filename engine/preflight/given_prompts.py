"""The prompt sets of a run as checks see them, and how messages name their lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from engine.config.reader.keys import KeyPath
from engine.data.json_lines import LineProblem
from engine.data.prompt_file import PromptFile

NAMED = 5
"""Lines of one kind that a message names."""


@dataclass(frozen=True)
class GivenPrompts:
    """One prompt set.

    Attributes:
        key: of the configuration that names the file.
        file: its prompts, all lines looked at.
        lengths: tokens of each prompt, template included; None where they cannot be known.
    """

    key: KeyPath
    file: PromptFile
    lengths: list[int] | None

    def line(self, index: int) -> str:
        """Return file and line of one prompt."""
        return f"{self.file.path.name}, line {self.file.lines[index]}"


def lines(numbers: Sequence[int]) -> str:
    """Return lines in words, the first few by number."""
    named = ", ".join(map(str, numbers[:NAMED]))
    more = f" and {len(numbers) - NAMED:,} more" if len(numbers) > NAMED else ""
    return f"{'line' if len(numbers) == 1 else 'lines'} {named}{more}"


def by_kind(problems: Iterable[LineProblem]) -> list[str]:
    """Return a sentence for each kind of problem: the first line's, and where there are others."""
    found: list[tuple[int, str]] = []
    in_order = sorted(problems, key=lambda problem: (problem.kind, problem.line))
    for _, group in groupby(in_order, key=lambda problem: problem.kind):
        first, *others = group
        also = f" ({lines([one.line for one in others])} likewise)" if others else ""
        found.append((first.line, f"line {first.line}: {first.says}{also}"))
    return [sentence for _, sentence in sorted(found)]
