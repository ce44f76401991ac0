"""How findings name the lines of a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from engine.data.json_lines import LineProblem

NAMED = 5
"""Lines of one kind that a message names."""
_KINDS = 20
"""Kinds of problems of one file that are told; a template can refuse each record in words of its
own."""


def lines(numbers: Sequence[int], unit: str = "line") -> str:
    """Return lines (or rows) in words, the first few by number."""
    named = ", ".join(map(str, numbers[:NAMED]))
    more = f" and {len(numbers) - NAMED:,} more" if len(numbers) > NAMED else ""
    return f"{unit if len(numbers) == 1 else f'{unit}s'} {named}{more}"


def by_kind(file: Path, problems: Iterable[LineProblem], unit: str = "line") -> list[str]:
    """Return a sentence for each kind of problem: the first line's, and where there are others.

    Args:
        file: they were found in.
        problems: one of line 0 is of the whole file.
        unit: what is counted there.
    """
    found: list[tuple[int, str, int]] = []
    in_order = sorted(problems, key=lambda problem: (problem.kind, problem.line))
    for _, group in groupby(in_order, key=lambda problem: problem.kind):
        first, *others = group
        also = f" ({lines([one.line for one in others], unit)} likewise)" if others else ""
        where = f"{file}, {unit} {first.line}" if first.line else f"{file}"
        found.append((first.line, f"{where}: {first.says}{also}", 1 + len(others)))
    found.sort()
    sentences = [sentence for _, sentence, _ in found[:_KINDS]]
    if len(found) > _KINDS:
        rest = sum(many for _, _, many in found[_KINDS:])
        units = unit if rest == 1 else f"{unit}s"
        sentences.append(f"{file}, and {rest:,} {units} wrong in other ways")
    return sentences
