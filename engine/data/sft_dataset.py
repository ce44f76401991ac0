"""Tokenize conversations once, into datasets on disk that a restart or another run finds.

A dataset's folder is named by a digest of all that decides its tokens: the contents of the files,
the template, the tokenizer, the options. Every rank computes the digest by itself. Rank 0 writes
what is not there; the others look for it again and again, with a limit, and are in no collective
meanwhile. ``source.json`` in the folder says what it was made from.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from blake3 import blake3

from engine.config.sft_data import SftDataConfig
from engine.data.chat_template import ChatTemplate
from engine.data.packing import TokenIds
from engine.data.sft_records import Conversation, conversations_of
from engine.data.sft_samples import ModelTemplate, QuestionTemplate, SampleMaker
from engine.data.templates import apply_template
from engine.data.token_dataset import TokenDataset, write_dataset
from engine.data.tokenizer import Tokenizer, tokenizer_digest
from engine.errors import RunError
from engine.platform.files import replace_json, writing
from engine.platform.waiting import wait_for

Part = Literal["train", "validation"]

_SOURCE = "source.json"
_NAMED = 5  # too long samples that a message names
_FORMAT = 2
"""Changes when the same files would give other tokens."""


@dataclass(frozen=True)
class SftDataset:
    """One part of the data, ready to be trained on.

    Attributes:
        tokens: the samples.
        conversations: that were read.
        dropped: samples that were too long.
    """

    part: Part
    folder: Path
    tokens: TokenDataset
    conversations: int
    dropped: int

    def line(self) -> str:
        """Return one line for a log."""
        lost = f", {self.dropped} dropped as too long" if self.dropped else ""
        return (
            f"{self.part}: {len(self.tokens)} samples of {self.conversations}"
            f" conversations{lost} ({self.folder})"
        )


@dataclass(frozen=True)
class SftDatasets:
    """What is learned, and what is only measured (None where nothing is held back)."""

    train: SftDataset
    validation: SftDataset | None


def open_sft_datasets(
    config: SftDataConfig, model: Path, folder: Path, *, rank: int
) -> SftDatasets:
    """Tokenize what is not yet, or wait for rank 0 to do so, and open the datasets.

    Args:
        model: a Hugging Face folder, for its tokenizer and chat template.
        folder: of all datasets of the run, usually ``RUN_DIR/data``, seen by all ranks.
        rank: among all processes of the trainer.
    Raises:
        RunError: a file, record or answer is not as it should be, samples are too long, nothing is
            left to learn or to measure, or rank 0 is not done after ``config.wait_seconds``.
    """
    text = _TextToTokens(config, model)
    train = _open(text, "train", folder, rank)
    held_back = config.validation or config.validation_share
    return SftDatasets(train, _open(text, "validation", folder, rank) if held_back else None)


class _TextToTokens:
    """All that decides the tokens, read once."""

    def __init__(self, config: SftDataConfig, model: Path) -> None:
        self.config = config
        self.tokenizer = Tokenizer.load(model)
        self._digests: dict[Path, str] = {}
        if config.template == "model":
            chat = ChatTemplate.load(model)
            self._template_source: Any = [chat.text, chat.special_tokens]
            self.template: ModelTemplate | QuestionTemplate = ModelTemplate(chat)
        else:
            self._template_source = apply_template(config.template, "{prompt}")
            self.template = QuestionTemplate(config.template)
        self._tokenizer_digest = tokenizer_digest(model)

    def files(self, part: Part) -> tuple[Path, ...]:
        """Return the files that ``part`` is read from."""
        return (part == "validation" and self.config.validation) or self.config.train

    def source(self, part: Part) -> dict[str, Any]:
        """Return what decides the tokens of ``part``; plain JSON."""
        config = self.config
        return {
            "format": _FORMAT,
            "part": part,
            "files": [self._digest(file) for file in self.files(part)],
            "template": self._template_source,
            "tokenizer": self._tokenizer_digest,
            "eos_ids": list(self.tokenizer.eos_ids),
            "vocabulary_size": self.tokenizer.vocabulary_size,
            "records": config.format,
            "validation_share": config.validation_share,
            "max_tokens": config.max_tokens,
            "too_long": config.too_long,
        }

    def conversations(self, part: Part) -> Iterator[Conversation]:
        """Yield the conversations of ``part`` in the order of its files."""
        share = self.config.validation_share
        for conversation in conversations_of(self.files(part), self.config.format):
            if not share or conversation.is_held_back(share) == (part == "validation"):
                yield conversation

    def _digest(self, file: Path) -> str:
        """Return the BLAKE3 digest of a file's content, as ``b3sum`` prints it."""
        if file not in self._digests:
            try:
                hasher = blake3(max_threads=blake3.AUTO)
                self._digests[file] = hasher.update_mmap(file).hexdigest()
            except OSError as error:
                raise RunError(f"{file}: cannot read it ({error.strerror})") from error
        return self._digests[file]


@dataclass
class _Count:
    """What passes by while a dataset is written."""

    conversations: int = 0
    samples: int = 0
    too_long: list[tuple[str, int]] = field(default_factory=list)


def _open(text: _TextToTokens, part: Part, folder: Path, rank: int) -> SftDataset:
    source = text.source(part)
    digest = blake3(json.dumps(source, sort_keys=True).encode()).hexdigest()[:16]
    place = folder / f"{part}-{digest}"
    if rank == 0:
        if not _is_whole(place):
            _write(text, part, place, source)
    else:
        wait_for(
            f"the tokenized {part} data in {place}",
            lambda: _is_whole(place) or None,
            text.config.wait_seconds,
            who=lambda: _progress(place),
        )
    found = json.loads((place / _SOURCE).read_text(encoding="utf-8"))
    return SftDataset(
        part=part,
        folder=place,
        tokens=TokenDataset(place),
        conversations=found["conversations"],
        dropped=found["dropped"],
    )


def _is_whole(place: Path) -> bool:
    return (place / "dataset.json").is_file()  # written last


def _progress(place: Path) -> str:
    """One clause about rank 0, who writes."""
    written = [file.stat() for file in place.parent.glob(f"{_unfinished(place, '*')}/tokens.bin")]
    if written:
        newest = max(written, key=lambda state: state.st_mtime)
        ago = time.time() - newest.st_mtime
        return f"rank 0 has written {newest.st_size} bytes of tokens, the last {ago:.0f} s ago"
    part, _, _ = place.name.partition("-")
    if others := sorted(other.name for other in place.parent.glob(f"{part}-*")):
        return (
            f"rank 0, who writes it, has not begun with this one, there is {', '.join(others)}; do"
            " all ranks see the same files?"
        )
    return "rank 0, who writes it, has not begun"


def _unfinished(place: Path, writer: str) -> str:
    """Name of the folder in which ``writer`` makes ``place``: two runs may do so at a time."""
    return f".{place.name}.{writer}"


def _write(text: _TextToTokens, part: Part, place: Path, source: dict[str, Any]) -> None:
    scratch = place.with_name(_unfinished(place, f"{socket.gethostname()}.{os.getpid()}"))
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        samples = _samples(text, part, scratch, source)
        write_dataset(scratch, samples, text.tokenizer.vocabulary_size)
        if not _is_whole(place):
            shutil.rmtree(place, ignore_errors=True)
        with writing(place):
            try:
                scratch.rename(place)
            except OSError:
                if not _is_whole(place):  # else another run was faster, with the same
                    raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _samples(
    text: _TextToTokens, part: Part, folder: Path, source: dict[str, Any]
) -> Iterator[tuple[TokenIds, TokenIds]]:
    """Yield the samples that are kept; after the last, check the counts and write them down."""
    config, count = text.config, _Count()

    def counted() -> Iterator[Conversation]:
        for conversation in text.conversations(part):
            count.conversations += 1
            yield conversation

    for where, prompt, response in SampleMaker(text.tokenizer, text.template).samples(counted()):
        if (length := len(prompt) + len(response)) > config.max_tokens:
            count.too_long.append((where, length))
        else:
            count.samples += 1
            yield prompt, response
    _check(config, part, count)
    files = [str(file) for file in text.files(part)]
    counts = {
        "conversations": count.conversations,
        "samples": count.samples,
        "dropped": len(count.too_long),
    }
    replace_json(folder / _SOURCE, {**source, "paths": files, **counts})


def _check(config: SftDataConfig, part: Part, count: _Count) -> None:
    """Refuse samples that are too long, or that nothing is left."""
    many = len(count.too_long)
    if many and config.too_long == "error":
        named = [f"{where} ({tokens} tokens)" for where, tokens in count.too_long[:_NAMED]]
        more = f" and {many - _NAMED} more" if many > _NAMED else ""
        raise RunError(
            f"data.max_tokens: expected samples of at most {config.max_tokens} tokens, found"
            f" {'; '.join(named)}{more}; raise it, or drop them with data.too_long=drop"
        )
    if not count.samples:
        kind = "to learn" if part == "train" else "for validation"
        share = f", data.validation_share={config.validation_share:g}"
        raise RunError(
            f"data: expected conversations {kind}, found none"
            f" ({count.conversations} read, {many} answers too long"
            f"{share if config.validation_share else ''})"
        )
