"""Tokenize one part of the conversations: into a dataset on disk, or only to look at it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from engine.config.reader.keys import KeyPath, dotted
from engine.data.sft_folder import SampleCounts, made_aside, write_counts
from engine.data.sft_records import Record, WrongRecord
from engine.data.sft_samples import SampleMaker
from engine.data.sft_source import Part, SftSource, files_of
from engine.data.token_dataset import write_dataset
from engine.errors import RunError

Refusal = tuple[KeyPath, str]
"""What stops a run: key of the configuration, and a sentence."""

_NAMED = 5  # too long samples that a message names


class _RefusedError(Exception):
    """There is something that a run cannot learn; the dataset must not be kept."""


class Tokenizing:
    """Makes the samples of one part and counts them; ``write`` or ``finish`` does the work.

    Attributes:
        counts: of the records that have been looked at.
        wrong: those of them that no sample can be made of.
    """

    def __init__(self, source: SftSource, part: Part, records: Iterable[Record]) -> None:
        """Look at nothing yet.

        Args:
            records: of ``part``, all of them or some.
        """
        self.counts, self.wrong = SampleCounts(), list[WrongRecord]()
        self._source, self._part = source, part
        self._first_too_long: list[str] = []
        self._kept = self._make(records)

    def write(self, place: Path) -> None:
        """Write the samples into a new dataset; none is there where a record is refused.

        Raises:
            RunError: it cannot be written; ``finish`` looks at the other records all the same.
        """
        with suppress(_RefusedError), made_aside(place) as scratch:
            vocabulary = self._source.tokenizer.vocabulary_size
            write_dataset(scratch, self._written_down(scratch), vocabulary)

    def finish(self) -> None:
        """Look at all records that have not been looked at."""
        for _ in self._kept:
            pass

    def too_long(self) -> Iterator[Refusal]:
        """Yield that samples are too long, where that stops a run."""
        config, counts = self._source.config, self.counts
        if counts.dropped and config.too_long == "error":
            more = counts.dropped - len(self._first_too_long)
            others = f" and {more:,} more" if more else ""
            yield (
                ("data", "max_tokens"),
                f"expected samples of at most {config.max_tokens} tokens, found"
                f" {'; '.join(self._first_too_long)}{others}; raise it to {counts.longest}, or drop"
                " them with data.too_long=drop",
            )

    def nothing_left(self) -> Iterator[Refusal]:
        """Yield that there is nothing to learn or to measure, where no other reason is told."""
        config, counts = self._source.config, self.counts
        told = self.wrong or (counts.dropped and config.too_long == "error")
        if not counts.samples and not told:
            kind = "to learn" if self._part == "train" else "for validation"
            share = f", data.validation_share={config.validation_share:g}"
            yield (
                ("data",),
                f"expected conversations {kind}, found none ({counts.conversations} read,"
                f" {counts.dropped} answers too long{share if config.validation_share else ''})",
            )

    def check(self) -> None:
        """Raise RunError for the first thing that stops a run, if there is one."""
        if self.wrong:
            more = len(self.wrong) - 1
            others = f" ({more:,} more {'is' if more == 1 else 'are'} wrong)" if more else ""
            raise RunError(f"{self.wrong[0]}{others}")
        for key, says in (*self.too_long(), *self.nothing_left()):
            raise RunError(f"{dotted(key)}: {says}")

    def _written_down(self, folder: Path) -> Iterator[tuple[list[int], list[int]]]:
        """Yield the samples; after the last, write down the counts, unless a record is refused."""
        yield from self._kept
        if self.wrong or any(self.too_long()) or any(self.nothing_left()):
            raise _RefusedError
        paths = [str(file) for file in files_of(self._source.config, self._part)]
        source = {**self._source.decides(self._part), "paths": paths}
        write_counts(folder, source, self.counts)

    def _make(self, records: Iterable[Record]) -> Iterator[tuple[list[int], list[int]]]:
        """Yield prompt and response of each sample that is kept."""
        counts = self.counts
        maker = SampleMaker(self._source.tokenizer, self._source.template)
        for one in maker.samples(self._counted(records)):
            if isinstance(one, WrongRecord):
                self.wrong.append(one)
                continue
            length = len(one.prompt) + len(one.response)
            counts.longest = max(counts.longest, length)
            if length > self._source.config.max_tokens:
                counts.dropped += 1
                if len(self._first_too_long) < _NAMED:
                    which = f", answer {one.answer}" if one.answer is not None else ""
                    self._first_too_long.append(f"{one.where}{which} ({length} tokens)")
            else:
                counts.samples += 1
                yield one.prompt, one.response

    def _counted(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            self.counts.conversations += not isinstance(record, WrongRecord)
            yield record
