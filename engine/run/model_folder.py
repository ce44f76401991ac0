"""Complete the Hugging Face folder that a run has made: generation config and chat template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.data.model_files import read_object, read_object_if_there
from engine.data.templates import CHAT_TEMPLATES
from engine.data.tokenizer import Tokenizer
from engine.platform.files import replace_json, replace_text

GENERATION, TEMPLATE = "generation_config.json", "chat_template.jinja"


def complete(folder: Path, template: str | None) -> None:
    """Write what other programs look for and the source folder did not have.

    ``eos_token_id`` of generation_config.json becomes all tokens that the run's servers stopped at
    and its answers ended with, whichever file of the source named them.

    Args:
        folder: weights, config.json and tokenizer are there.
        template: name of the prompt template that the model knows; None: no chat template.

    Raises:
        RunError: a file cannot be read or written.
    """
    tokenizer = Tokenizer.load(folder)
    found = read_object_if_there(folder / GENERATION)
    named = found.get("eos_token_id")
    if set(named if isinstance(named, list) else [named]) != set(tokenizer.eos_ids):
        ids = _one_or_several(tokenizer.eos_ids)
        replace_json(folder / GENERATION, (found or _token_ids(folder)) | {"eos_token_id": ids})
    if template in CHAT_TEMPLATES and not _has_chat_template(folder):
        # A chat template has to write itself what the tokenizer puts before a prompt.
        text = tokenizer.text_of(tokenizer.front) + CHAT_TEMPLATES[template]
        replace_text(folder / TEMPLATE, text)


def _token_ids(folder: Path) -> dict[str, int]:
    config = read_object(folder / "config.json")
    keys = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {key: config[key] for key in keys if config.get(key) is not None}


def _one_or_several(ids: Sequence[int]) -> int | list[int]:
    return ids[0] if len(ids) == 1 else [*ids]


def _has_chat_template(folder: Path) -> bool:
    if (folder / TEMPLATE).is_file():
        return True
    return read_object_if_there(folder / "tokenizer_config.json").get("chat_template") is not None
