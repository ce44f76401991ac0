"""Statistics of answers' texts for reports: self-checks and mixed languages."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from recipes.chain_task.vocabulary import LANGUAGES


def self_checks(text: str) -> bool:
    """Return whether an answer stops to check itself: ``wait``, in either language."""
    return not _words(text).isdisjoint(language.wait for language in LANGUAGES)


def mixes_languages(text: str) -> bool:
    """Return whether an answer has words of both languages; digits and labels belong to neither."""
    words = _words(text)
    return all(not words.isdisjoint(language.words) for language in LANGUAGES)


def self_check_share(texts: Sequence[str]) -> float:
    """Return the share of answers that check themselves; StatisticsError if there are none."""
    return fmean(map(self_checks, texts))


def mixed_language_share(texts: Sequence[str]) -> float:
    """Return the share of answers that mix languages; StatisticsError if there are none."""
    return fmean(map(mixes_languages, texts))


def _words(text: str) -> set[str]:
    return set(text.split())
