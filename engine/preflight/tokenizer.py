"""Check that the tokenizer of a run's model can be read, and say what its files disagree about."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from engine.data.tokenizer import Tokenizer
from engine.errors import RunError
from engine.preflight.finding import Finding, warning
from engine.preflight.model_folder import MODEL
from engine.preflight.sections import Sections

_FILE = "tokenizer.json"
_OTHERS = ("tokenizer.model", "tiktoken.model", "vocab.json", "vocab.txt")


def check(sections: Sections) -> Iterable[Finding]:
    """Find what would stop a run from reading the tokenizer in the folder ``model``."""
    path = sections.get("model", Path)
    if path is None or not (path / "config.json").is_file():  # told elsewhere
        return
    if not (path / _FILE).is_file():
        yield Finding(MODEL, _missing(path))
        return
    try:
        tokenizer = Tokenizer.load(path)
    except RunError as error:
        yield Finding(MODEL, str(error))
        return
    yield from (warning(MODEL, remark) for remark in tokenizer.remarks)


def _missing(path: Path) -> str:
    found = f"expected {_FILE} in {path}, found none"
    for name in _OTHERS:
        if (path / name).is_file():
            return (
                f"{found}; it holds {name}: write a {_FILE} with transformers "
                "(AutoTokenizer.from_pretrained, then save_pretrained)"
            )
    return found
