"""Read lines of JSON objects, and say of each wrong line what it is.

What other tools write (Latin-1, one array over many lines, half an emoji, compressed files) is
called by its name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from engine.platform import git_lfs

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
PARQUET = b"PAR1"
"""First bytes of a Parquet file."""

_MAGIC = {
    PARQUET: "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"\x1f\x8b": "a gzip file",
    b"\x28\xb5\x2f\xfd": "a zstandard file",
    b"PK\x03\x04": "a zip file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ\x00": "an xz file",
    b"7z\xbc\xaf\x27\x1c": "a 7z file",
    git_lfs.BEGINNING: "a pointer of Git LFS, not what it points to (run git lfs pull)",
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
LONGEST_MAGIC = max(map(len, _MAGIC))
_QUOTED = 60  # characters of a wrong line or value that a message repeats


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


class WrongLineError(Exception):
    """A line is wrong.

    Attributes:
        kind: as of :class:`LineProblem`.
        says: as of :class:`LineProblem`.
    """

    def __init__(self, kind: str, says: str) -> None:
        super().__init__(says)
        self.kind, self.says = kind, says


def other_format(content: bytes) -> str | None:
    """Return what a file is whose first bytes are ``content``; None if it may be lines of text."""
    return next((what for magic, what in _MAGIC.items() if content.startswith(magic)), None)


def parse_object(line: bytes) -> dict[str, Any]:
    """Return the JSON object that stands on a line, behind a byte order mark or without one.

    Raises:
        WrongLineError: there is none, or a key stands twice in it.
    """
    try:
        text = line.decode("utf-8").lstrip("\ufeff")
    except UnicodeDecodeError as error:
        byte = line[error.start]
        guess = line.decode("cp1252", errors="replace").strip()
        raise WrongLineError(
            "encoding",
            f"expected UTF-8, found byte 0x{byte:02x} at position {error.start}; if it is Latin-1"
            f" ({quoted(guess)}), convert the file",
        ) from error
    if not text.strip():
        raise WrongLineError("blank", "expected a JSON object, found a blank line")
    try:
        record = _JSON.decode(text)
    except ValueError as error:
        found = f"{quoted(text.rstrip())}{_how_to(text) or _why(text, error)}"
        says = f"expected a JSON object, found {found}"
        raise WrongLineError("no JSON", says) from error
    except RecursionError as error:
        raise WrongLineError("nested", "expected a JSON object, found too many levels") from error
    if not isinstance(record, dict):
        found = f"a JSON {_name(record)} ({quoted(text.rstrip())})"
        raise WrongLineError("no object", f"expected a JSON object, found {found}{_how_to(text)}")
    return record


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON. Of a key that stands twice nobody knows which value is meant."""
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise WrongLineError(
            f"{twice} twice",
            f"key {quoted(twice)} stands there {names.count(twice)} times; keep one",
        )
    return record


_JSON = json.JSONDecoder(object_pairs_hook=_object)


def check_text(value: Any, what: str, name: str) -> None:
    """Pass silently if ``value`` is a text that is not empty and can be written in UTF-8.

    Args:
        what: of the kind of a problem: ``answer`` is no text.
        name: of a message: ``'answer'`` must be a text.

    Raises:
        WrongLineError: it is not.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise WrongLineError(
            f"{what} is a number",
            f"{name} must be a text, found the number {quoted(value)}; quote it",
        )
    if not isinstance(value, str) or not value.strip():
        raise WrongLineError(
            f"{what} is no text", f"{name} must be a text that is not empty, found {quoted(value)}"
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise WrongLineError(
            "half a character",
            f"{name} has half a character, {value[error.start]!a} at position"
            f" {error.start}; a text that has been cut within an emoji, for example",
        ) from error


def quoted(value: object) -> str:
    """Return ``value`` as a message shows it: its first characters, on one line."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= _QUOTED else text[:_QUOTED] + "..."


def _why(text: str, error: ValueError) -> str:
    """Return why a line that looks like an object is none, as a clause."""
    if not text.startswith("{"):
        return ""
    if isinstance(error, json.JSONDecodeError):
        return f"; {error.msg} at character {error.pos + 1} of {len(text.rstrip()):,}"
    return f"; {error}"  # a number of thousands of digits


def _how_to(text: str) -> str:
    if text.strip() in ("{", "["):
        return "; write each object on one line"
    return "; write each of its objects on a line of its own" if text.startswith("[{") else ""


def _name(value: object) -> str:
    names = {list: "array", str: "text", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
