"""Read a file of problems: one JSON object a line, with the texts ``id``, ``prompt``, ``answer``.

Every line is looked at, so that a person hears of all that is wrong at once. What other data sets
and tools write (GSM8K's keys, chats, numbers as answers, Parquet, Latin-1) is called by its name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blake3 import blake3

from engine.errors import RunError

KEYS = ("id", "prompt", "answer")

_NAMED_ELSEWHERE = {
    "id": ("uuid", "uid", "index", "idx"),
    "prompt": ("question", "problem", "query", "instruction", "input"),
    "answer": ("label", "solution", "ground_truth", "target", "final_answer", "expected_answer"),
}
"""What other data sets call our keys."""
_MAGIC = {
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"\x1f\x8b": "a gzip file",
    b"\x28\xb5\x2f\xfd": "a zstandard file",
    b"PK\x03\x04": "a zip file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ\x00": "an xz file",
    b"7z\xbc\xaf\x27\x1c": "a 7z file",
    b"version https://git-lfs.": "a pointer of Git LFS, not what it points to (run git lfs pull)",
    b"<!DOCTYPE": "a web page",
    b"<html": "a web page",
    b"\xff\xfe\x00\x00": "UTF-32 text",
    b"\x00\x00\xfe\xff": "UTF-32 text",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"{\x00": "UTF-16 text",
    b"\x00{": "UTF-16 text",
}
"""First bytes of files that are no JSON lines in UTF-8; of two that fit the first counts."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_QUOTED = 60  # characters of a wrong line or value that a message repeats
_SHOWN = ", ".join(f'"{key}": ...' for key in KEYS)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question: ``prompt`` is its text before any template, ``answer`` the reference answer."""

    id: str
    prompt: str
    answer: str


@dataclass(frozen=True, slots=True)
class LineProblem:
    """What is wrong with one line.

    Attributes:
        line: counted from 1.
        kind: the same for lines that are wrong in the same way.
        says: what was expected and what was found.
    """

    line: int
    kind: str
    says: str


@dataclass(frozen=True)
class PromptFile:
    """What stands in one file.

    Attributes:
        digest: BLAKE3 of its bytes.
        prompts: of all lines that are right, in their order.
        lines: the number of each one's line, counted from 1.
        problems: of all other lines.
    """

    path: Path
    digest: str
    prompts: tuple[Prompt, ...]
    lines: tuple[int, ...] = field(repr=False)
    problems: tuple[LineProblem, ...]


def read_prompt_file(path: Path) -> PromptFile:
    """Read ``path`` and look at every line.

    Blank lines behind the last problem are no problems; byte order marks (where files were
    joined there are several) and CRLF are taken.

    Raises:
        RunError: it cannot be read, or is no file of lines at all.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: cannot read the prompt set ({error.strerror})") from error
    for magic, what in _MAGIC.items():
        if content.startswith(magic):
            raise RunError(
                f"{path}: expected JSON lines in UTF-8, one {{{_SHOWN}}} a line, found {what}"
            )
    digest = blake3(content, max_threads=blake3.AUTO).hexdigest()
    prompts: list[Prompt] = []
    lines: list[int] = []
    problems: list[LineProblem] = []
    line_of: dict[str, int] = {}
    for number, line in _lines(content):
        try:
            prompt = _parse(line)
            if prompt.id in line_of:
                says = f"id {prompt.id!r} is that of line {line_of[prompt.id]}"
                raise _WrongLineError("same id", says)
        except _WrongLineError as wrong:
            problems.append(LineProblem(number, *wrong.args))
            continue
        line_of[prompt.id] = number
        prompts.append(prompt)
        lines.append(number)
    return PromptFile(path, digest, tuple(prompts), tuple(lines), tuple(problems))


class _WrongLineError(Exception):
    """Its arguments: kind and sentence of a :class:`LineProblem`."""


def _lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and bytes of each line, without blank ones at the end."""
    yield from enumerate(content.removeprefix(_BYTE_ORDER_MARK).rstrip().splitlines(), start=1)


def _parse(line: bytes) -> Prompt:
    record = _record(line)
    if missing := [key for key in KEYS if key not in record]:
        raise _WrongLineError(f"lacks {missing}", _missing(missing, record))
    for key in KEYS:
        _check_text(key, record[key])
    return Prompt(*(record[key] for key in KEYS))


def _record(line: bytes) -> dict[str, Any]:
    try:
        text = line.decode("utf-8").lstrip("\ufeff")
    except UnicodeDecodeError as error:
        byte = line[error.start]
        guess = line.decode("cp1252", errors="replace").strip()
        raise _WrongLineError(
            "encoding",
            f"expected UTF-8, found byte 0x{byte:02x} at position {error.start}; if it is Latin-1"
            f" ({_quote(guess)}), convert the file",
        ) from error
    if not text.strip():
        raise _WrongLineError("blank", "expected a JSON object, found a blank line")
    try:
        record = _JSON.decode(text)
    except ValueError as error:
        says = f"expected a JSON object, found {_quote(text)}{_how_to(text) or _why(text, error)}"
        raise _WrongLineError("no JSON", says) from error
    except RecursionError as error:
        raise _WrongLineError("nested", "expected a JSON object, found too many levels") from error
    if not isinstance(record, dict):
        found = f"a JSON {_name(record)} ({_quote(text)})"
        raise _WrongLineError("no object", f"expected a JSON object, found {found}{_how_to(text)}")
    return record


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON, in which each of :data:`KEYS` stands once."""
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        if twice := [key for key in KEYS if names.count(key) > 1]:
            raise _WrongLineError(
                f"{twice[0]} twice",
                f"key {twice[0]!r} stands there {names.count(twice[0])} times; keep one",
            )
    return record


_JSON = json.JSONDecoder(object_pairs_hook=_object)


def _why(text: str, error: ValueError) -> str:
    """Return why a line that looks like an object is none, as a clause."""
    if not text.startswith("{"):
        return ""
    if isinstance(error, json.JSONDecodeError):
        return f"; {error.msg} at character {error.pos + 1} of {len(text):,}"
    return f"; {error}"  # a number of thousands of digits


def _how_to(text: str) -> str:
    if text.strip() in ("{", "["):
        return "; write each object on one line"
    return "; write each of its objects on a line of its own" if text.startswith("[{") else ""


def _missing(missing: list[str], record: Mapping[str, Any]) -> str:
    """Return one sentence about missing keys: what is there, and what may be meant."""
    named = (key if key.isprintable() else ascii(key) for key in list(record)[:8])
    keys, found = ", ".join(map(repr, missing)), ", ".join(named) or "no keys"
    lacks = f"key {keys} is missing" if len(missing) == 1 else f"keys {keys} are missing"
    says = f"{lacks}, found {found}; expected {{{_SHOWN}}}"
    hints = []
    for key, names in _NAMED_ELSEWHERE.items():
        near = (name for name in record if name.strip().lower() in (key, *names))
        if key in missing and (name := next(near, None)) is not None:
            hints.append(f"rename {name} to {key}")
    if isinstance(record.get("reward_model"), dict) and "ground_truth" in record["reward_model"]:
        hints.append("take reward_model.ground_truth as answer")
    if "messages" in record or isinstance(record.get("prompt"), list):
        hints.append("write the question alone as prompt, not a chat")
    if "id" in missing and not any(hint.endswith(" to id") for hint in hints):
        hints.append("give each line an id of its own")
    return f"{says}; {', '.join(hints)}" if hints else says


def _check_text(key: str, value: Any) -> None:
    if isinstance(value, list) and key == "prompt":
        raise _WrongLineError(
            "chat",
            f"'prompt' must be the question as a text, found a list of messages {_quote(value)}",
        )
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise _WrongLineError(
            f"{key} is a number",
            f"{key!r} must be a text, found the number {_quote(value)}; quote it",
        )
    if not isinstance(value, str) or not value.strip():
        raise _WrongLineError(
            f"{key} is no text", f"{key!r} must be a text that is not empty, found {_quote(value)}"
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _WrongLineError(
            "half a character",
            f"{key!r} has half a character, {value[error.start]!a} at position"
            f" {error.start}; a text that has been cut within an emoji, for example",
        ) from error


def _name(value: object) -> str:
    names = {list: "array", str: "text", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _quote(value: object) -> str:
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= _QUOTED else text[:_QUOTED] + "..."
