"""Look at what is learned and what is only measured: every record, and the tokens of every answer.

The tokens are kept in the user's cache, where the run finds them. Of more text than is tokenized in
about a minute only a part is, evenly over the files; the form of every record is looked at always.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from engine.config.reader.keys import KeyPath
from engine.config.sft_data import SftDataConfig
from engine.data.json_lines import LineProblem
from engine.data.sft_folder import SampleCounts, cached, is_whole, read_counts
from engine.data.sft_records import Record, WrongRecord
from engine.data.sft_source import Part, SftSource, files_of, part_records, parts
from engine.data.sft_tokenizing import Tokenizing
from engine.data.user_cache import forget_unused
from engine.errors import RunError
from engine.preflight.conversation_contents import SeenConversations
from engine.preflight.finding import Finding, warning
from engine.preflight.prompt_lengths import context_of
from engine.preflight.sections import Sections
from engine.preflight.tokenizer import tokenizer_of
from engine.preflight.wording import by_kind

_TOKENIZED_BYTES = 1 << 28  # of the files of a part, before a start
_PROGRESS_SECONDS = 2.0


def check_parts(sections: Sections, config: SftDataConfig) -> Iterator[Finding]:
    """Yield what is found in the training and the validation part; say how much there is."""
    source, refused = _source(sections, config)
    yield from refused
    looks = {part: _Look(sections, config, source, part) for part in parts(config)}
    train, validation = looks["train"], looks.get("validation")
    for look in looks.values():
        yield from look.findings(train)
    yield from train.seen.repeated(train.key)
    if validation is not None:
        yield from validation.seen.repeated(validation.key)
        yield from validation.seen.shared_with(train.seen, validation.key)
    batch = sections.get("batch_size", int)
    if batch is not None and train.counts is not None and batch > train.counts.samples:
        yield warning(
            ("batch_size",),
            f"each update learns some of the {train.counts.samples:,} samples of data.train several"
            f" times, as batch_size is {batch:,}",
        )


def _source(
    sections: Sections, config: SftDataConfig
) -> tuple[SftSource | None, Iterable[Finding]]:
    """Return what makes tokens; None where the tokenizer or the template cannot be read."""
    model = sections.get("model", Path)
    if model is None:
        return None, ()
    try:
        tokenizer = tokenizer_of(model)
    except RunError:  # told by its own check
        return None, ()
    try:
        return SftSource(config, model, tokenizer), ()
    except RunError as error:
        return None, (Finding(("data", "template"), str(error)),)


class _Look:
    """One look at a part of the data.

    Attributes:
        key: that names the part's files.
        seen: its conversations; none of a large part that was found right before.
        counts: what becomes of them; None where something is wrong or not all are tokenized.
        wrong: records of its files that nothing can be made of.
    """

    def __init__(
        self, sections: Sections, config: SftDataConfig, source: SftSource | None, part: Part
    ) -> None:
        self.seen = SeenConversations()
        self.counts: SampleCounts | None = None
        self.wrong = 0
        self._sections, self._config, self._source, self._part = sections, config, source, part
        self._files = files_of(config, part)
        self.key: KeyPath = ("data", part if part == "train" or config.validation else "train")
        size = sum(file.stat().st_size for file in self._files if file.is_file())
        self._one_of = max(1, -(-size // _TOKENIZED_BYTES))  # of so many, one is tokenized

    def findings(self, train: _Look) -> Iterator[Finding]:
        """Read the part, and yield what is wrong with it; say how much there is.

        Args:
            train: the training part, which is read before the other.
        """
        made = self._made()
        if made is not None:
            self.counts = read_counts(made)
            again = self._records() if self._one_of == 1 else ()
            yield from self._at_lines(one for one in again if isinstance(one, WrongRecord))
            yield from self._told(self.counts)
        elif self._source is None:
            found = [one for one in self._records() if isinstance(one, WrongRecord)]
            yield from self._at_lines(found)
        else:
            work = self._tokenized(self._source)
            yield from self._at_lines(work.wrong)
            refusals = [*work.too_long()]
            if self._one_of == 1 and not train.wrong:  # else there may be others
                refusals += work.nothing_left()
            yield from (Finding(key, says) for key, says in refusals)
            if not work.wrong and not refusals:
                self.counts = work.counts if self._one_of == 1 else None
                yield from self._told(work.counts)

    def _made(self) -> Path | None:
        """Return the folder that has all tokens already: the run's, or the cache's."""
        if self._source is None:
            return None
        try:
            name = self._source.name(self._part)
        except RunError:  # told where the files are read
            return None
        run_dir = self._sections.get("run_dir", Path)
        places = (run_dir / "data" / name if run_dir is not None else None, cached(name))
        found = next((place for place in places if place is not None and is_whole(place)), None)
        if found is not None:
            with suppress(OSError):
                os.utime(found)  # it is used
        return found

    def _tokenized(self, source: SftSource) -> Tokenizing:
        """Return the work of tokenizing, done; the cache has the tokens then, if it can."""
        work = Tokenizing(source, self._part, self._chosen())
        with suppress(RunError, OSError):  # without a cache it goes on, and is done again
            place = cached(source.name(self._part))
            if place is not None and self._one_of == 1:
                work.write(place)
                forget_unused(place.parent)
        work.finish()
        return work

    def _records(self) -> Iterator[Record]:
        """Yield the part's records; see its conversations, and say how far it is."""
        last = time.monotonic()
        for record in part_records(self._config, self._part):
            if isinstance(record, WrongRecord):
                self.wrong += 1
            else:
                self.seen.see(record)
            if (now := time.monotonic()) - last > _PROGRESS_SECONDS:
                self._say(f"{self.seen.many + self.wrong:,} conversations are looked at")
                last = now
            yield record

    def _chosen(self) -> Iterator[Record]:
        """Yield the records of which tokens are made before a start."""
        for record in self._records():
            if isinstance(record, WrongRecord) or (self.seen.many - 1) % self._one_of == 0:
                yield record

    def _at_lines(self, records: Iterable[WrongRecord]) -> Iterator[Finding]:
        """Yield a problem for each kind of wrong record of each file."""
        by_file: dict[Path, list[WrongRecord]] = defaultdict(list)
        for record in records:
            by_file[record.where.file].append(record)
        for file, found in by_file.items():
            problems = [LineProblem(one.where.number, one.kind, one.says) for one in found]
            key = (*self.key, self._files.index(file))
            for says in by_kind(file, problems, found[0].where.unit):
                yield Finding(key, says)

    def _told(self, counts: SampleCounts) -> Iterator[Finding]:
        """Say how much there is, and yield what a person may not mean."""
        if self._one_of > 1 and self.counts is None:
            self._say(
                f"{self.seen.many:,} conversations; one of {self._one_of:,} is tokenized before the"
                f" start ({counts}), all others when the run begins"
            )
        else:
            self._say(str(counts))
        if counts.dropped:
            yield warning(
                ("data", "too_long"),
                f"{counts.dropped:,} of {counts.dropped + counts.samples:,} samples of"
                f" data.{self._part} have more than {self._config.max_tokens:,} tokens and are"
                f" dropped (the longest has {counts.longest:,})",
            )
        model = self._sections.get("model", Path)
        context = context_of(model) if model is not None else None
        longest = min(counts.longest, self._config.max_tokens)
        if context is not None and longest > context:
            yield warning(
                ("data", "max_tokens"),
                f"the longest sample of data.{self._part} has {longest:,} tokens, the model's"
                f" context {context:,} (max_position_embeddings); it has never seen positions"
                " beyond",
            )

    def _say(self, what: str) -> None:
        self._sections.say(f"data.{self._part}: {what}")
