"""Check that a model's folder has a tokenizer, and say where its files differ."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from engine.config.sampler import PromptsConfig
from engine.config.sft_data import SftDataConfig
from engine.data.tokenizer import Tokenizer, tokenizer_digest
from engine.errors import RunError
from engine.preflight.finding import Finding
from engine.preflight.model_folder import TOKENIZER
from engine.preflight.sections import Sections


def check(sections: Sections) -> Iterable[Finding]:
    """Refuse a folder whose tokenizer cannot be read, for recipes that read texts with it."""
    model = sections.get("model", Path)
    texts = sections.get("prompts", PromptsConfig) or sections.get("data", SftDataConfig)
    if model is None or texts is None or not (model / TOKENIZER).is_file():
        return  # that it is missing is told where the folder is checked
    try:
        remarks = tokenizer_of(model).remarks
    except RunError as error:
        yield Finding(("model",), str(error))
        return
    for remark in remarks:
        sections.say(f"model: {remark}")


def tokenizer_of(model: Path) -> Tokenizer:
    """Return the tokenizer of a folder; several checks need it and it takes a while to read.

    Raises:
        RunError: it cannot be read.
    """
    return _tokenizer(model, tokenizer_digest(model))


@lru_cache(maxsize=1)
def _tokenizer(model: Path, digest: str) -> Tokenizer:
    return Tokenizer.load(model)
