"""Read a file of problems: one JSON object a line, with the texts ``id``, ``prompt``, ``answer``.

Every line is looked at, so that a person hears of all that is wrong at once. What other data sets
and tools write (GSM8K's keys, chats, numbers as answers, Parquet, Latin-1) is called by its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blake3 import blake3

from engine.data.json_lines import (
    BYTE_ORDER_MARK,
    LineProblem,
    WrongLineError,
    check_text,
    other_format,
    parse_object,
    quoted,
)
from engine.errors import RunError

KEYS = ("id", "prompt", "answer")

_NAMED_ELSEWHERE = {
    "id": ("uuid", "uid", "index", "idx"),
    "prompt": ("question", "problem", "query", "instruction", "input"),
    "answer": ("label", "solution", "ground_truth", "target", "final_answer", "expected_answer"),
}
"""What other data sets call our keys."""
_SHOWN = ", ".join(f'"{key}": ...' for key in KEYS)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question: ``prompt`` is its text before any template, ``answer`` the reference answer."""

    id: str
    prompt: str
    answer: str


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
    if (what := other_format(content)) is not None:
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
                raise WrongLineError("same id", says)
        except WrongLineError as wrong:
            problems.append(LineProblem(number, wrong.kind, wrong.says))
            continue
        line_of[prompt.id] = number
        prompts.append(prompt)
        lines.append(number)
    return PromptFile(path, digest, tuple(prompts), tuple(lines), tuple(problems))


def _lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and bytes of each line, without blank ones at the end."""
    yield from enumerate(content.removeprefix(BYTE_ORDER_MARK).rstrip().splitlines(), start=1)


def _parse(line: bytes) -> Prompt:
    record = parse_object(line)
    if missing := [key for key in KEYS if key not in record]:
        raise WrongLineError(f"lacks {missing}", _missing(missing, record))
    for key in KEYS:
        _check_text(key, record[key])
    return Prompt(*(record[key] for key in KEYS))


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
        raise WrongLineError(
            "chat",
            f"'prompt' must be the question as a text, found a list of messages {quoted(value)}",
        )
    check_text(value, key, repr(key))
