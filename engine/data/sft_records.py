"""Read conversations from JSON lines and Parquet files; every wrong record is told by what it is.

Two kinds of records are read:

- ``chat``: ``{"messages": [{"role": "user", "content": "..."}, ...]}``;
- ``prompt_response``: ``{"prompt": "...", "response": "..."}``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from engine.data.chat_template import Message
from engine.data.json_lines import (
    LONGEST_MAGIC,
    PARQUET,
    WrongLineError,
    check_text,
    other_format,
    parse_object,
    quoted,
)

RecordFormat = Literal["chat", "prompt_response"]

KEYS: dict[RecordFormat, tuple[str, ...]] = {
    "chat": ("messages",),
    "prompt_response": ("prompt", "response"),
}
"""What a record of each format must have; other keys are left alone."""
ROLES = ("system", "developer", "user", "assistant", "tool")
ANSWERS = "assistant"
"""The role whose messages are learned."""

_NAMED_ELSEWHERE = {
    "messages": ("conversations", "conversation", "dialog", "chat"),
    "prompt": ("instruction", "question", "problem", "query", "input"),
    "response": ("output", "completion", "answer", "solution", "generation"),
    "role": ("from", "speaker"),
    "content": ("value", "text"),
}
"""What other data sets call our keys."""
_NAMED = 8  # keys that a message names
_ROWS_AT_ONCE = 256  # of a Parquet file


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands.

    Attributes:
        file: it is in.
        number: of its line or row, counted from 1; 0 where the whole file is meant.
        unit: ``line`` of JSON lines, ``row`` of Parquet.
    """

    file: Path
    number: int
    unit: Literal["line", "row"] = "line"

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.number}" if self.number else str(self.file)


@dataclass(frozen=True, slots=True)
class WrongRecord:
    """What no sample can be made of.

    Attributes:
        where: the record stands.
        kind: the same for records that are wrong in the same way.
        says: what was expected and what was found.
    """

    where: Place
    kind: str
    says: str

    def __str__(self) -> str:
        return f"{self.where}: {self.says}"


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages with at least one answer among them, and something before the first.

    Attributes:
        where: it stands.
    """

    where: Place
    messages: tuple[Message, ...]

    @property
    def answers(self) -> list[int]:
        """Positions of the assistant's messages, ascending."""
        return [i for i, message in enumerate(self.messages) if message["role"] == ANSWERS]

    @property
    def question(self) -> tuple[Message, ...]:
        """What precedes the first answer."""
        return self.messages[: self.answers[0]]

    def is_held_back(self, share: float) -> bool:
        """Whether it belongs to the validation share, by a hash of what precedes its first answer.

        A pure function of the text: answers to the same question fall on the same side, in any
        order of files and on any machine.
        """
        question = [[m["role"], m["content"]] for m in self.question]
        digest = blake2b(json.dumps(question).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < share * 2**64


Record = Conversation | WrongRecord


def read_records(file: Path, wanted: str = "auto") -> Iterator[Record]:
    """Yield the conversations of a file in its order, and what is wrong with other records.

    Blank lines behind the last record are no problems; a byte order mark and CRLF are taken. Empty
    files yield nothing.

    Args:
        wanted: format of the records, or ``auto``: that of the first one that has one.
    """
    try:
        with file.open("rb") as opened:
            head = opened.read(LONGEST_MAGIC)
        if head.startswith(PARQUET):
            yield from _rows(file, wanted)
        elif (what := other_format(head)) is not None:
            says = f"expected JSON lines in UTF-8 or a Parquet file, found {what}"
            yield WrongRecord(Place(file, 0), "file", says)
        else:
            yield from _lines(file, wanted)
    except OSError as error:
        says = f"cannot read the conversations ({error.strerror or error})"
        yield WrongRecord(Place(file, 0), "file", says)


def records_of(files: Iterable[Path], wanted: str = "auto") -> Iterator[Record]:
    """Yield the records of several files, end to end; see :func:`read_records`."""
    for file in files:
        yield from read_records(file, wanted)


def record_format(keys: Collection[str], wanted: str) -> RecordFormat:
    """Return the format of a record with ``keys``; ``wanted`` is the configured one, or ``auto``.

    Raises:
        WrongLineError: a key is missing, or the record has both formats; names the nearest key.
    """
    if wanted != "auto":
        name: RecordFormat = "chat" if wanted == "chat" else "prompt_response"
        if (wrong := _missing(KEYS[name], keys)) is not None:
            raise wrong
        return name
    fitting: list[RecordFormat] = [name for name, needed in KEYS.items() if {*needed} <= {*keys}]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise WrongLineError(
            "both formats",
            "expected messages, or prompt and response, found all of them; say which with "
            "data.format",
        )
    partly = KEYS["prompt_response"] if _named(keys, *KEYS["prompt_response"]) else KEYS["chat"]
    wrong = _missing(partly, keys)
    assert wrong is not None  # otherwise it would be fitting
    raise WrongLineError(
        wrong.kind, f"expected the key messages, or prompt and response: {wrong.says}"
    )


def _lines(file: Path, wanted: str) -> Iterator[Record]:
    form: RecordFormat | None = None
    blank: list[WrongRecord] = []  # no problems unless a record follows
    with file.open("rb") as opened:
        for number, line in enumerate(opened, start=1):
            where = Place(file, number)
            try:
                record = parse_object(line)
                form = form or record_format(record.keys(), wanted)
                found: Record = Conversation(where, _messages(record, form))
            except WrongLineError as wrong:
                found = WrongRecord(where, wrong.kind, wrong.says)
                if not line.strip():
                    blank.append(found)
                    continue
            yield from blank
            blank.clear()
            yield found


def _rows(file: Path, wanted: str) -> Iterator[Record]:
    import pyarrow as pa
    from pyarrow import parquet

    number = 0
    try:
        opened = parquet.ParquetFile(file)
        form = record_format(opened.schema_arrow.names, wanted)
        for batch in opened.iter_batches(_ROWS_AT_ONCE, columns=list(KEYS[form])):
            for record in batch.to_pylist():
                number += 1
                where = Place(file, number, "row")
                try:
                    yield Conversation(where, _messages(record, form))
                except WrongLineError as wrong:
                    yield WrongRecord(where, wrong.kind, wrong.says)
    except WrongLineError as wrong:  # of its columns
        yield WrongRecord(Place(file, 0, "row"), wrong.kind, wrong.says)
    except (OSError, pa.ArrowException) as error:
        says = f"expected a whole Parquet file ({error})"
        yield WrongRecord(Place(file, 0, "row"), "file", says)


def _messages(record: Mapping[str, Any], form: RecordFormat) -> tuple[Message, ...]:
    if (wrong := _missing(KEYS[form], record.keys())) is not None:
        raise wrong
    if form == "prompt_response":
        for key in KEYS[form]:
            check_text(record[key], key, repr(key))
        return (
            {"role": "user", "content": record["prompt"]},
            {"role": ANSWERS, "content": record["response"]},
        )
    given = record["messages"]
    if not isinstance(given, list) or not given:
        says = f"'messages' must be a list of messages, found {quoted(given)}"
        raise WrongLineError("messages are no list", says)
    messages = tuple(_message(one, number) for number, one in enumerate(given, start=1))
    if all(message["role"] != ANSWERS for message in messages):
        says = f"expected an answer (role {ANSWERS}), found none to learn"
        raise WrongLineError("no answer", says)
    if messages[0]["role"] == ANSWERS:
        says = "expected a question before the first answer, found none"
        raise WrongLineError("no question", says)
    return messages


def _message(given: Any, number: int) -> Message:
    where = f"message {number}"
    if not isinstance(given, dict):
        says = f"{where}: expected role and content, found {quoted(given)}"
        raise WrongLineError("a message is no object", says)
    # A Parquet file gives every message all keys that any of them has.
    keys = [key for key, value in given.items() if value is not None]
    if (wrong := _missing(("role", "content"), keys)) is not None:
        raise WrongLineError(f"message {wrong.kind}", f"{where}: {wrong.says}")
    if unknown := [key for key in keys if key not in ("role", "content")]:
        raise WrongLineError(
            f"also {unknown[0]}",
            f"{where}: expected role and content alone, found {unknown[0]!r} too, which the model"
            " would not be shown",
        )
    role, content = given["role"], given["content"]
    if role not in ROLES:
        near = get_close_matches(str(role), ROLES, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; valid: {', '.join(ROLES)}"
        says = f"{where}: unknown role {quoted(role)}{hint}"
        raise WrongLineError(f"role {quoted(role)}", says)
    if not (role == "system" and content == ""):
        check_text(content, f"content of the {role}", f"{where}: content of the {role}")
    return {"role": role, "content": content}


def _missing(needed: Iterable[str], keys: Collection[str]) -> WrongLineError | None:
    """Return what is wrong if a key of ``needed`` is missing: what is there, and the nearest."""
    missing = next((key for key in needed if key not in keys), None)
    if missing is None:
        return None
    near = get_close_matches(missing, keys, n=1, cutoff=0.5) or _named(keys, missing)
    hint = f"; did you mean {missing} by {near[0]!r}?" if near else ""
    found = ", ".join(sorted(keys)[:_NAMED]) + (", ..." if len(keys) > _NAMED else "")
    says = f"key {missing!r} is missing, found {found or 'no keys'}{hint}"
    return WrongLineError(f"lacks {missing}", says)


def _named(keys: Collection[str], *wanted: str) -> list[str]:
    """Return those of ``keys`` that stand for one of the ``wanted``, here or in other data sets."""
    names = [name for key in wanted for name in (key, *_NAMED_ELSEWHERE[key])]
    return [name for name in names if name in keys]
