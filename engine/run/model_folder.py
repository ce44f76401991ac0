"""Complete the Hugging Face folder that a run has made: generation config and chat template."""

from __future__ import annotations

import json
from pathlib import Path

from engine.data.templates import CHAT_TEMPLATES
from engine.data.tokenizer import Tokenizer
from engine.platform.files import replace_json, replace_text

GENERATION, TEMPLATE = "generation_config.json", "chat_template.jinja"


def complete(folder: Path, template: str | None) -> None:
    """Write what other programs look for and the source folder did not have.

    Args:
        folder: weights, config.json and tokenizer are there.
        template: name of the prompt template that the model knows; None: no chat template.

    Raises:
        RunError: a file cannot be written.
    """
    if not (folder / GENERATION).is_file():
        config = json.loads((folder / "config.json").read_text())
        keys = ("bos_token_id", "eos_token_id", "pad_token_id")
        known = {key: config[key] for key in keys if config.get(key) is not None}
        replace_json(folder / GENERATION, known)
    if template in CHAT_TEMPLATES and not _has_chat_template(folder):
        replace_text(folder / TEMPLATE, _first_tokens(folder) + CHAT_TEMPLATES[template])


def _first_tokens(folder: Path) -> str:
    """Return what the tokenizer puts before a prompt; a chat template has to write it itself."""
    tokenizer = Tokenizer.load(folder)
    return tokenizer.decode(tokenizer.encode(""))


def _has_chat_template(folder: Path) -> bool:
    if (folder / TEMPLATE).is_file():
        return True
    tokenizer = folder / "tokenizer_config.json"
    return tokenizer.is_file() and "chat_template" in json.loads(tokenizer.read_text())
