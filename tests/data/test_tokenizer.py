from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

from engine.data.tokenizer import Tokenizer
from engine.errors import RunError

WORDS = ["<pad>", "<eos>", "<bos>", "<think>", "</think>", "7", "等"]


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    backend = tokenizers.Tokenizer(WordLevel({word: token for token, word in enumerate(WORDS)}))
    backend.pre_tokenizer = WhitespaceSplit()
    backend.add_special_tokens(WORDS[:3])
    backend.save(str(tmp_path / "tokenizer.json"))
    write_json(tmp_path / "config.json", {"vocab_size": 8, "eos_token_id": 1})
    return tmp_path


def test_text_becomes_ids_and_comes_back(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.encode("<bos> 7 等") == [2, 5, 6]
    assert tokenizer.decode([3, 6, 4, 5, 1]) == "<think> 等 </think> 7"
    assert tokenizer.vocabulary_size == 8


def test_only_the_eos_that_ends_a_response_is_taken_off(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.decode([5, 1]) == "7"
    assert tokenizer.decode([5]) == "7"  # cut off by the length limit
    assert tokenizer.decode([5, 1, 1]) == "7 <eos>"
    assert tokenizer.decode([2, 5, 0]) == "<bos> 7 <pad>"
    assert tokenizer.decode([]) == tokenizer.decode([1]) == ""


def test_what_the_tokenizer_puts_in_front_is_kept(folder: Path) -> None:
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    backend.save(str(folder / "tokenizer.json"))
    assert Tokenizer.load(folder).encode("7") == [2, 5]


@pytest.mark.parametrize(
    ("generation", "expected"),
    [(None, (1,)), ({}, (1,)), ({"eos_token_id": 4}, (4,)), ({"eos_token_id": [4, 1]}, (4, 1))],
)
def test_the_generation_config_says_what_ends_a_response(
    folder: Path, generation: dict[str, Any] | None, expected: tuple[int, ...]
) -> None:
    if generation is not None:
        write_json(folder / "generation_config.json", generation)
    assert Tokenizer.load(folder).eos_ids == expected


def test_an_unknown_word_is_an_error_with_the_text(folder: Path) -> None:
    with pytest.raises(RunError, match="cannot tokenize '7 seven'"):
        Tokenizer.load(folder).encode("7 seven")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, "config.json: cannot read it"),
        ("config.json", "{", "config.json: expected JSON"),
        ("config.json", "[]", "config.json: expected a JSON object"),
        ("config.json", '{"eos_token_id": 1}', "vocab_size must be an integer, found None"),
        ("config.json", '{"vocab_size": 8}', "eos_token_id in generation_config.json or config"),
        ("config.json", '{"vocab_size": 8, "eos_token_id": []}', "list of ids, found []"),
        ("config.json", '{"vocab_size": 8, "eos_token_id": 8}', "[8] is not within the 8 ids"),
        ("config.json", '{"vocab_size": 6, "eos_token_id": 1}', "token id 6, but vocab_size"),
        ("tokenizer.json", None, "tokenizer.json: not found"),
        ("tokenizer.json", "{}", "tokenizer.json: not a tokenizer"),
    ],
)
def test_a_bad_folder_gets_one_clear_sentence(
    folder: Path, file: str, content: str | None, message: str
) -> None:
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(RunError) as error:
        Tokenizer.load(folder)
    assert message in str(error.value)
    assert str(folder) in str(error.value)


def test_no_transformers_and_no_torch_are_imported() -> None:
    program = (
        "import sys, engine.data.tokenizer, engine.data.prompts, engine.data.templates;"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
