"""Check that the tokenizer of a run's model can be read, and say what its files disagree about."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from engine.data.tokenizer import Tokenizer, tokenizer_digest
from engine.errors import RunError
from engine.preflight.finding import Finding, warning
from engine.preflight.model_folder import MODEL
from engine.preflight.sections import Sections

FILE = "tokenizer.json"
_OTHERS = ("tokenizer.model", "tiktoken.model", "vocab.json", "vocab.txt")


def check(sections: Sections) -> Iterable[Finding]:
    """Find what would stop a run from reading the tokenizer in the folder ``model``."""
    path = sections.get("model", Path)
    if path is None or not (path / "config.json").is_file():  # told elsewhere
        return
    if not (path / FILE).is_file():
        yield Finding(MODEL, _missing(path))
        return
    try:
        tokenizer = tokenizer_of(path)
    except RunError as error:
        yield Finding(MODEL, str(error))
        return
    yield from (warning(MODEL, remark) for remark in tokenizer.remarks)


def tokenizer_of(model: Path) -> Tokenizer:
    """Return the tokenizer of a folder; several checks need it, and it takes a while to read.

    Raises:
        RunError: it cannot be read.
    """
    return _tokenizer(model, tokenizer_digest(model))


@lru_cache(maxsize=1)
def _tokenizer(model: Path, digest: str) -> Tokenizer:
    return Tokenizer.load(model)


def _missing(path: Path) -> str:
    found = f"expected {FILE} in {path}, found none"
    for name in _OTHERS:
        if (path / name).is_file():
            return (
                f"{found}; it holds {name}: write a {FILE} with transformers "
                "(AutoTokenizer.from_pretrained, then save_pretrained)"
            )
    return found
