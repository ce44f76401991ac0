"""Check the prompt sets: every line, every token count, what is asked of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from engine.config.reader.keys import KeyPath
from engine.config.sampler import PromptsConfig
from engine.data.json_lines import LineProblem
from engine.data.prompt_file import PromptFile, read_prompt_file
from engine.data.prompt_tokens import UntokenizableError, prompt_tokens
from engine.errors import RunError
from engine.preflight.finding import Finding
from engine.preflight.given_prompts import GivenPrompts
from engine.preflight.prompt_contents import check_contents
from engine.preflight.prompt_lengths import check_lengths
from engine.preflight.sections import Sections
from engine.preflight.tokenizer import tokenizer_of
from engine.preflight.wording import by_kind

_Lengths = Callable[[PromptFile], list[int] | None]


def check(sections: Sections) -> Iterable[Finding]:
    """Read both prompt sets, tokenize them where that is not done, and hold them against all."""
    config = sections.get("prompts", PromptsConfig)
    if config is None:
        return
    model = _with_a_tokenizer(sections.get("model", Path))

    def lengths(file: PromptFile) -> list[int] | None:
        if model is None:
            return None
        tokens = prompt_tokens(
            file, model, config.template, lambda: tokenizer_of(model), sections.say
        )
        return tokens.lengths

    given = []
    for name, path in (("train", config.train), ("held_out", config.held_out)):
        findings, found = _open(("prompts", name), path, lengths)
        yield from findings
        given += [found] if found else []
    yield from check_lengths(sections, given)
    yield from check_contents(sections, given)


def _with_a_tokenizer(model: Path | None) -> Path | None:
    """Return ``model`` if its tokenizer can be read; otherwise that is told by its own check."""
    try:
        return model if model is not None and tokenizer_of(model) else None
    except RunError:
        return None


def _open(key: KeyPath, path: Path, lengths: _Lengths) -> tuple[list[Finding], GivenPrompts | None]:
    """Return what is wrong with a file's lines, and the set if there is anything right in it."""
    try:
        file = read_prompt_file(path)
    except RunError as error:
        return [Finding(key, str(error))], None
    problems, counts = list(file.problems), None
    try:
        counts = lengths(file)
    except UntokenizableError as error:
        problems += _at_lines(file, error)
    except RunError as error:
        problems.append(LineProblem(0, "tokenizer", str(error)))
    if not file.prompts and not problems:
        return [Finding(key, f"expected at least one problem, found none in {path}")], None
    return [Finding(key, says) for says in by_kind(path, problems)], GivenPrompts(key, file, counts)


def _at_lines(file: PromptFile, error: UntokenizableError) -> Iterator[LineProblem]:
    for index, says in error.problems:
        yield LineProblem(file.lines[index], "words", f"(id {file.prompts[index].id!r}) {says}")
