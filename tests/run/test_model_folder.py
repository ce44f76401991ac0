"""What a finished run writes beside weights and tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from engine.data.templates import CHAT_TEMPLATES
from engine.data.tokenizer import Tokenizer
from engine.run.model_folder import complete

WORDS = ["<pad>", "<s>", "</s>", "<|end|>", "x"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    backend = tokenizers.Tokenizer(WordLevel({word: token for token, word in enumerate(WORDS)}))
    backend.pre_tokenizer = WhitespaceSplit()
    backend.add_special_tokens(WORDS[:4])
    backend.save(str(tmp_path / "tokenizer.json"))
    write(tmp_path, "config", {"vocab_size": 5, "eos_token_id": 2, "bos_token_id": 1})
    return tmp_path


def write(folder: Path, name: str, content: Any) -> None:
    (folder / f"{name}.json").write_text(json.dumps(content))


def generation(folder: Path) -> Any:
    return json.loads((folder / "generation_config.json").read_text())


def test_a_folder_without_a_generation_config_gets_one(folder: Path):
    complete(folder, None)
    assert generation(folder) == {"bos_token_id": 1, "eos_token_id": 2}
    assert not (folder / "chat_template.jinja").exists()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"temperature": 0.6}, {"temperature": 0.6, "eos_token_id": [3, 2]}),
        ({"eos_token_id": 2, "top_k": 1}, {"eos_token_id": [3, 2], "top_k": 1}),
        ({"eos_token_id": [2, 3]}, {"eos_token_id": [2, 3]}),
        ({"eos_token_id": [0, 3]}, {"eos_token_id": [3, 0, 2]}),
    ],
)
def test_the_generation_config_names_every_token_that_ended_answers(
    folder: Path, before: dict[str, Any], after: dict[str, Any]
):
    write(folder, "tokenizer_config", {"eos_token": "<|end|>"})
    write(folder, "generation_config", before)
    ended = set(Tokenizer.load(folder).eos_ids)
    complete(folder, None)
    assert generation(folder) == after
    assert set(Tokenizer.load(folder).eos_ids) == ended


def test_the_chat_template_begins_as_prompts_did(folder: Path):
    write(folder, "tokenizer_config", {"tokenizer_class": "LlamaTokenizer"})
    complete(folder, "r1_zero")
    text = (folder / "chat_template.jinja").read_text()
    assert text == "<s>" + CHAT_TEMPLATES["r1_zero"]


def test_a_bos_that_is_also_the_eos_stands_in_the_chat_template(folder: Path):
    write(folder, "tokenizer_config", {"tokenizer_class": "LlamaTokenizer", "bos_token": "</s>"})
    complete(folder, "plain")
    assert (folder / "chat_template.jinja").read_text().startswith("</s>{%")


@pytest.mark.parametrize(("found", "written"), [(None, True), ("{{ messages }}", False)])
def test_a_chat_template_of_null_is_none(folder: Path, found: str | None, written: bool):
    write(folder, "tokenizer_config", {"chat_template": found})
    complete(folder, "r1_zero")
    assert (folder / "chat_template.jinja").exists() == written
