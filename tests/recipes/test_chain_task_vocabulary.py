from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend

from engine.data.tokenizer import Tokenizer
from engine.errors import RunError
from engine.rewards.format import score_format
from engine.rewards.score import RIGHT
from recipes.chain_task.answers import full_trace
from recipes.chain_task.problems import Problem
from recipes.chain_task.vocabulary import (
    BOS_ID,
    CHINESE,
    ENGLISH,
    EOS_ID,
    PAD_ID,
    TOKEN_OF,
    WORDS,
    encode,
    write_tokenizer,
)

PROBLEM = Problem(3, (("+", 4), ("*", 7), ("-", 2)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_tokenizer(folder)
    config = {"vocab_size": len(WORDS), "eos_token_id": EOS_ID}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def backend(folder: Path) -> Backend:
    return Backend.from_file(str(folder / "tokenizer.json"))


def test_every_word_is_one_token() -> None:
    assert len(WORDS) == len(set(WORDS)) == len(TOKEN_OF) == 48
    assert (PAD_ID, EOS_ID, BOS_ID) == (0, 1, 2)
    assert encode(WORDS) == list(range(48))


def test_the_languages_share_no_word() -> None:
    assert len({*ENGLISH.words, *CHINESE.words}) == 14


words = st.lists(st.sampled_from(WORDS), max_size=30)


@given(words=words)
def test_the_tokenizer_agrees_with_the_vocabulary(backend: Backend, words: list[str]) -> None:
    text = " ".join(words)
    assert backend.encode(text).ids == encode(words)
    assert backend.decode(encode(words), skip_special_tokens=False) == text


def test_a_decoded_trace_has_the_tags_that_the_format_reward_wants(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    words = full_trace(PROBLEM, CHINESE)
    text = tokenizer.decode(encode(words))
    assert text == " ".join(words[:-1])
    assert score_format(text) == RIGHT


def test_a_prompt_is_tokenized_as_the_corpus_does(folder: Path) -> None:
    prompt = " ".join(PROBLEM.words)
    assert Tokenizer.load(folder).encode(prompt) == encode(PROBLEM.words)


def test_a_word_outside_the_vocabulary_is_an_error(folder: Path) -> None:
    with pytest.raises(RunError, match="cannot tokenize"):
        Tokenizer.load(folder).encode("3 plus four")


@pytest.mark.slow
def test_transformers_reads_the_same_tokenizer(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (0, 1, 2)
    for words in (PROBLEM.words, full_trace(PROBLEM, ENGLISH)):
        assert tokenizer(" ".join(words))["input_ids"] == encode(words)
        assert tokenizer.decode(encode(words)) == " ".join(words)
