"""Prompts are tokenized once: what the cache keeps, when it is not used, and what is wrong."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from chat_models import model_folder, word_folder

from engine.data import prompt_tokens as module
from engine.data.prompt_file import PromptFile, read_prompt_file
from engine.data.prompt_tokens import (
    PromptTokens,
    TokenizedPrompts,
    UntokenizableError,
    prompt_tokens,
)
from engine.data.templates import apply_template
from engine.data.tokenizer import Tokenizer
from engine.errors import RunError


class Counted:
    """Gives the tokenizer of a folder and counts how often it is asked to."""

    def __init__(self, model: Path) -> None:
        self.model, self.times = model, 0

    def __call__(self) -> Tokenizer:
        self.times += 1
        return Tokenizer.load(self.model)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return model_folder(tmp_path / "model", "chatml")


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., PromptFile]:
    def write(*questions: str) -> PromptFile:
        path = tmp_path / "problems.jsonl"
        records = [{"id": q, "prompt": q, "answer": "7"} for q in questions]
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return read_prompt_file(path)

    return write


QUESTIONS = ["What is 3 + 4?", "答え?", "a", "What is four and three? " * 9]


def ids(tokens: PromptTokens) -> list[list[int]]:
    return [tokens[index] for index in range(len(tokens))]


@pytest.mark.parametrize("template", ["plain", "r1_zero"])
def test_ids_are_those_of_the_tokenizer_and_are_made_once(model, written, template):
    file, tokenizer = written(*QUESTIONS), Counted(model)
    expected = [Tokenizer.load(model).encode(apply_template(template, q)) for q in QUESTIONS]
    for _ in range(3):
        tokens = prompt_tokens(file, model, template, tokenizer, print)
        assert ids(tokens) == expected
        assert tokens.lengths == [len(one) for one in expected]
    assert tokenizer.times == 1


def test_what_decides_the_ids_decides_the_cached_file(model, written):
    tokenizer = Counted(model)
    for file, template in (
        (written(*QUESTIONS), "plain"),
        (written(*QUESTIONS), "r1_zero"),
        (written(*QUESTIONS[1:]), "plain"),
    ):
        prompt_tokens(file, model, template, tokenizer, print)
    settings = json.loads((model / "tokenizer_config.json").read_text())
    settings["additional_special_tokens"] = ["four"]
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    tokens = prompt_tokens(written(*QUESTIONS), model, "plain", tokenizer, print)
    assert tokenizer.times == 4
    assert ids(tokens) == Tokenizer.load(model).encode_many(QUESTIONS)


def test_a_damaged_file_is_made_anew(model, written, tmp_path):
    file, tokenizer = written(*QUESTIONS), Counted(model)
    expected = ids(prompt_tokens(file, model, "plain", tokenizer, print))
    (place,) = (tmp_path / "cache").rglob("*.ids")
    for damaged in (b"", place.read_bytes()[:-4], place.read_bytes() + bytes(3)):
        place.write_bytes(damaged)
        assert ids(prompt_tokens(file, model, "plain", tokenizer, print)) == expected
    assert tokenizer.times == 4


def test_without_a_place_to_write_it_is_tokenized_each_time(model, written, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    file, tokenizer = written(*QUESTIONS), Counted(model)
    for _ in range(2):
        assert len(prompt_tokens(file, model, "plain", tokenizer, print)) == len(QUESTIONS)
    assert tokenizer.times == 2


def test_what_nobody_has_read_for_long_is_forgotten(model, written, tmp_path):
    prompt_tokens(written("old"), model, "plain", Counted(model), print)
    (old,) = (tmp_path / "cache").rglob("*.ids")
    long_ago = time.time() - 61 * 86400
    os.utime(old, (long_ago, long_ago))
    prompt_tokens(written("new"), model, "plain", Counted(model), print)
    assert old not in [*(tmp_path / "cache").rglob("*.ids")]
    assert len([*(tmp_path / "cache").rglob("*")]) == 3  # two folders and the new one


def test_every_prompt_without_ids_is_named(tmp_path, written, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = word_folder(tmp_path / "words", ["<eos>", "one", "two"])
    with pytest.raises(UntokenizableError) as error:
        prompt_tokens(
            written("one two", "three", "two", "four one"), model, "plain", Counted(model), print
        )
    assert [index for index, _ in error.value.problems] == [1, 3]
    assert "cannot tokenize 'three'" in str(error.value)
    assert not [*(tmp_path / "cache").rglob("*.ids")]


def test_progress_is_said_where_it_takes_long(model, written, monkeypatch):
    monkeypatch.setattr(module, "_AT_ONCE", 2)
    monkeypatch.setattr(module, "_PROGRESS_SECONDS", 0.0)
    said: list[str] = []
    prompt_tokens(written(*QUESTIONS), model, "plain", Counted(model), said.append)
    assert said[-1].endswith("problems.jsonl: 2 of 4 prompts are tokenized")


def test_a_set_gives_the_ids_of_the_prompts_it_asks(model, written):
    path, tokenizer = written(*QUESTIONS).path, Tokenizer.load(model)
    prompts = TokenizedPrompts.load(path, model, "r1_zero", tokenizer, seed=3, say=print)
    asked = prompts.set.take(3, 3)
    texts = [apply_template("r1_zero", prompt.prompt) for prompt in asked]
    assert [prompts.tokens(prompt) for prompt in asked] == tokenizer.encode_many(texts)


def test_a_set_with_a_wrong_line_is_refused(model, written):
    path = written(*QUESTIONS).path
    path.write_text(path.read_text() + "\n{}\n7\n")
    with pytest.raises(RunError, match=r"line 5: .* a blank line \(2 more lines are wrong\)"):
        TokenizedPrompts.load(path, model, "plain", Tokenizer.load(model), seed=0, say=print)
