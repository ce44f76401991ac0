"""The conversations of a configuration: their files, and all that decides their tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from blake3 import blake3

from engine.config.sft_data import SftDataConfig
from engine.data.chat_template import ChatTemplate
from engine.data.sft_records import Record, WrongRecord, records_of
from engine.data.sft_samples import ModelTemplate, QuestionTemplate
from engine.data.templates import apply_template
from engine.data.tokenizer import Tokenizer, tokenizer_digest
from engine.errors import RunError
from engine.platform.files import digest

Part = Literal["train", "validation"]

_FORMAT = 2
"""Changes when the same files would give other tokens."""


def parts(config: SftDataConfig) -> list[Part]:
    """Return the parts of the data: what is learned, and what is only measured, if anything is."""
    return ["train", "validation"] if config.validation or config.validation_share else ["train"]


def files_of(config: SftDataConfig, part: Part) -> tuple[Path, ...]:
    """Return the files that ``part`` is read from."""
    return (part == "validation" and config.validation) or config.train


def part_records(config: SftDataConfig, part: Part) -> Iterator[Record]:
    """Yield the records of ``part`` in the order of its files.

    Wrong ones of files that both parts are read from belong to ``train``.
    """
    share, held_back = config.validation_share, part == "validation"
    for record in records_of(files_of(config, part), config.format):
        if isinstance(record, WrongRecord):
            if not (share and held_back):
                yield record
        elif not share or record.is_held_back(share) == held_back:
            yield record


class SftSource:
    """All that decides the tokens of conversations.

    Attributes:
        config: the files and options.
        tokenizer: of the model.
        template: makes text of messages.
    """

    def __init__(self, config: SftDataConfig, model: Path, tokenizer: Tokenizer) -> None:
        """Read the template.

        Args:
            model: a Hugging Face folder.
            tokenizer: that of ``model``.

        Raises:
            RunError: the model has no chat template where ``config`` asks for it, or no right one.
        """
        self.config, self.tokenizer = config, tokenizer
        self._digests: dict[Path, str] = {}
        if config.template == "model":
            chat = ChatTemplate.load(model)
            self._template_source: Any = [chat.text, chat.special_tokens]
            self.template: ModelTemplate | QuestionTemplate = ModelTemplate(chat)
        else:
            self._template_source = apply_template(config.template, "{prompt}")
            self.template = QuestionTemplate(config.template)
        self._tokenizer_digest = tokenizer_digest(model)

    def decides(self, part: Part) -> dict[str, Any]:
        """Return what decides the tokens of ``part``; plain JSON.

        Raises:
            RunError: a file cannot be read.
        """
        config = self.config
        return {
            "format": _FORMAT,
            "part": part,
            "files": [self._digest(file) for file in files_of(config, part)],
            "template": self._template_source,
            "tokenizer": self._tokenizer_digest,
            "eos_ids": list(self.tokenizer.eos_ids),
            "vocabulary_size": self.tokenizer.vocabulary_size,
            "records": config.format,
            "validation_share": config.validation_share,
            "max_tokens": config.max_tokens,
            "too_long": config.too_long,
        }

    def name(self, part: Part) -> str:
        """Return the name of the folder that the tokens of ``part`` are kept in.

        Raises:
            RunError: a file cannot be read.
        """
        decides = json.dumps(self.decides(part), sort_keys=True)
        return f"{part}-{blake3(decides.encode()).hexdigest()[:16]}"

    def _digest(self, file: Path) -> str:
        """Return the BLAKE3 digest of a file's content, as ``b3sum`` prints it."""
        if file not in self._digests:
            try:
                self._digests[file] = digest(file)
            except OSError as error:
                raise RunError(f"{file}: cannot read it ({error.strerror})") from error
        return self._digests[file]
