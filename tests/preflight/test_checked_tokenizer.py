"""A tokenizer that a run could not read is refused, and what its files disagree about is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from model_folders import QWEN3
from tokenizers.models import WordLevel

from engine.preflight import tokenizer
from engine.preflight.finding import Finding
from engine.preflight.sections import Sections


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    words = {f"w{number}": number for number in range(40)}
    tokenizers.Tokenizer(WordLevel(words, unk_token="w0")).save(str(tmp_path / "tokenizer.json"))
    config = {**QWEN3, "eos_token_id": 7}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def found(folder: Path) -> list[Finding]:
    return list(tokenizer.check(Sections({"model": folder}, print)))


def test_a_good_one_is_passed(folder: Path):
    assert found(folder) == []


@pytest.mark.parametrize("other", [None, "tiktoken.model", "vocab.json"])
def test_one_that_is_missing_is_told_with_what_is_there(folder: Path, other: str | None):
    (folder / "tokenizer.json").unlink()
    if other:
        (folder / other).touch()
    (one,) = found(folder)
    assert one.says.startswith(f"expected tokenizer.json in {folder}, found none") and one.refuses
    assert (f"it holds {other}" in one.says) == (other is not None)


def test_one_that_is_none_and_an_ending_token_beyond_the_model_are_refused(folder: Path):
    (folder / "config.json").write_text(json.dumps({**QWEN3, "eos_token_id": 52}))
    (one,) = found(folder)
    assert "52" in one.says and one.refuses
    (folder / "tokenizer.json").write_text("{}")
    (one,) = found(folder)
    assert "tokenizer.json: not a tokenizer" in one.says and one.refuses


def test_what_files_disagree_about_is_a_warning(folder: Path):
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 9}))
    (one,) = found(folder)
    assert "9" in one.says and not one.refuses


def test_a_folder_without_config_and_a_config_alone_are_left_to_others(folder: Path):
    assert found(folder / "config.json") == []
    (folder / "config.json").unlink()
    assert found(folder) == []
