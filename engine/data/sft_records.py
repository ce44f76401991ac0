"""Read conversations from JSON lines and Parquet files; errors name file and line.

The two formats of a record stand in ``engine.config.sft_data``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path
from typing import Any

from engine.config.sft_data import KEYS, PARQUET_MAGIC, RecordFormat, missing_key, record_format
from engine.data.chat_template import Message
from engine.errors import RunError

ROLES = ("system", "developer", "user", "assistant", "tool")
ANSWERS = "assistant"
"""The role whose messages are learned."""

_ROWS_AT_ONCE = 256  # of a Parquet file


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages with at least one answer among them, and something before the first.

    Attributes:
        where: file and line or row, as messages name it.
    """

    where: str
    messages: tuple[Message, ...]

    @property
    def answers(self) -> list[int]:
        """Positions of the assistant's messages, ascending."""
        return [i for i, message in enumerate(self.messages) if message["role"] == ANSWERS]

    def is_held_back(self, share: float) -> bool:
        """Whether it belongs to the validation share, by a hash of what precedes its first answer.

        A pure function of the text: answers to the same question fall on the same side, in any
        order of files and on any machine.
        """
        question = [[m["role"], m["content"]] for m in self.messages[: self.answers[0]]]
        digest = blake2b(json.dumps(question).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < share * 2**64


def read_conversations(file: Path, wanted: str = "auto") -> Iterator[Conversation]:
    """Yield the conversations of a file in its order. Empty files yield none.

    Args:
        wanted: format of the records, or ``auto``: that of the first one.
    Raises:
        RunError: the file cannot be read or a record is not as it should be; names file and line
            (JSON lines) or row (Parquet), counted from 1, and the nearest key.
    """
    try:
        with file.open("rb") as opened:
            parquet = opened.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC
    except OSError as error:
        raise RunError(f"{file}: cannot read the conversations ({error.strerror})") from error
    form: RecordFormat | None = None
    for where, record in _rows(file, wanted) if parquet else _lines(file):
        form = form or _format(record, wanted, where)
        yield Conversation(where, _messages(record, form, where))


def _lines(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the record of each line; blank lines at the end are none."""
    blank: int | None = None
    with file.open("rb") as opened:
        for number, line in enumerate(opened, start=1):
            if not line.strip():
                blank = blank or number
                continue
            if blank is not None:
                raise RunError(f"{file}, line {blank}: expected a JSON object, found a blank line")
            where = f"{file}, line {number}"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):  # not UTF-8, or not JSON
                record = None
            if not isinstance(record, dict):
                raise RunError(f"{where}: expected a JSON object, found {line[:60]!r}")
            yield where, record


def _rows(file: Path, wanted: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        opened = parquet.ParquetFile(file)
        columns = list(KEYS[_format(dict.fromkeys(opened.schema_arrow.names), wanted, str(file))])
        number = 0
        for batch in opened.iter_batches(_ROWS_AT_ONCE, columns=columns):
            for record in batch.to_pylist():
                number += 1
                yield f"{file}, row {number}", record
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"{file}: expected a whole Parquet file ({error})") from error


def _format(record: Mapping[str, Any], wanted: str, where: str) -> RecordFormat:
    try:
        return record_format(record.keys(), wanted)
    except ValueError as error:
        raise RunError(f"{where}: {error}") from None


def _messages(record: Mapping[str, Any], form: RecordFormat, where: str) -> tuple[Message, ...]:
    for key in KEYS[form]:
        if key not in record:
            raise RunError(f"{where}: {missing_key(key, record.keys())}")
    if form == "prompt_response":
        return (
            {"role": "user", "content": _text(record["prompt"], "'prompt'", where)},
            {"role": ANSWERS, "content": _text(record["response"], "'response'", where)},
        )
    given = record["messages"]
    if not isinstance(given, list) or not given:
        raise RunError(f"{where}: 'messages' must be a list of messages, found {_short(given)}")
    messages = tuple(_message(one, f"{where}, message {n}") for n, one in enumerate(given, 1))
    if all(message["role"] != ANSWERS for message in messages):
        raise RunError(f"{where}: expected an answer (role {ANSWERS}), found none to learn")
    if messages[0]["role"] == ANSWERS:
        raise RunError(f"{where}: expected a question before the first answer, found none")
    return messages


def _message(given: Any, where: str) -> Message:
    if not isinstance(given, dict):
        raise RunError(f"{where}: expected role and content, found {_short(given)}")
    # A Parquet file gives every message all keys that any of them has.
    keys = [key for key, value in given.items() if value is not None]
    for key in ("role", "content"):
        if key not in keys:
            raise RunError(f"{where}: {missing_key(key, keys)}")
    if unknown := [key for key in keys if key not in ("role", "content")]:
        raise RunError(
            f"{where}: expected role and content alone, found {unknown[0]!r} too, which the model"
            " would not be shown"
        )
    role = given["role"]
    if role not in ROLES:
        near = get_close_matches(str(role), ROLES, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; valid: {', '.join(ROLES)}"
        raise RunError(f"{where}: unknown role {_short(role)}{hint}")
    content = given["content"]
    if role == "system" and content == "":
        return {"role": role, "content": ""}
    return {"role": role, "content": _text(content, f"content of the {role}", where)}


def _text(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise RunError(f"{where}: {name} must be a text that is not empty, found {_short(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RunError(
            f"{where}: {name} has half a character, {value[error.start]!a} at position "
            f"{error.start}; a text that has been cut within an emoji, for example"
        ) from None
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def conversations_of(files: Iterable[Path], wanted: str = "auto") -> Iterator[Conversation]:
    """Yield the conversations of several files, end to end; see :func:`read_conversations`."""
    for file in files:
        yield from read_conversations(file, wanted)
