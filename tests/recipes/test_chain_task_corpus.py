from __future__ import annotations

import os
import pickle
import subprocess
import sys

import pytest

from recipes.chain_task.corpus import Corpus, CorpusConfig, Document, Stage
from recipes.chain_task.problems import LABELS, Problem, ProblemsConfig, is_held_out
from recipes.chain_task.vocabulary import BOS_ID, EOS_ID, WORDS

CONFIG = CorpusConfig()
STAGES: tuple[Stage, ...] = ("textbook", "web")


def words(tokens: list[int]) -> list[str]:
    return [WORDS[token] for token in tokens]


def problem_in(document: Document) -> Problem:
    """Read the problem back from a document's prompt."""
    rest = [word for word in words(document.prompt_tokens)[1:-2] if word not in LABELS]
    operations = zip(rest[1::2], map(int, rest[2::2]), strict=True)
    return Problem(int(rest[0]), tuple(operations))


@pytest.mark.parametrize("stage", STAGES)
def test_no_document_is_about_a_held_out_problem(stage: Stage) -> None:
    often = CorpusConfig(problems=ProblemsConfig(held_out_share=0.5))
    for config, count in ((CONFIG, 4000), (often, 1000)):
        corpus = Corpus(config, stage, seed=1)
        for index in range(count):
            problem = problem_in(corpus.document(index))
            assert not is_held_out(problem, config.problems)


@pytest.mark.parametrize("stage", STAGES)
def test_a_document_is_the_same_whoever_asks_for_it_and_when(stage: Stage) -> None:
    one, other = Corpus(CONFIG, stage, seed=1), Corpus(CONFIG, stage, seed=1)
    ascending = [one.document(index) for index in range(50)]
    assert [other.document(index) for index in reversed(range(50))] == ascending[::-1]


def test_documents_differ_by_index_seed_and_stage() -> None:
    documents = [
        Corpus(CONFIG, stage, seed=seed).document(index)
        for stage in STAGES
        for seed in (0, 1)
        for index in (0, 1, 10**12)
    ]
    assert len({tuple(document.prompt_tokens) for document in documents}) == len(documents)


def test_documents_never_change_between_machines_and_releases() -> None:
    program = (
        "from recipes.chain_task.corpus import *; import sys; from hashlib import blake2b;"
        "documents = [Corpus(CorpusConfig(), stage, seed=1).document(index)"
        " for stage in ('textbook', 'web') for index in range(100)];"
        "text = repr([(one.prompt_tokens, one.tokens) for one in documents]);"
        "print(blake2b(text.encode(), digest_size=8).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for hash_seed in ("0", "1")
    }
    assert found == {"4acf8d63ddc34e31"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_document_is_a_prompt_and_an_answer_that_ends(stage: Stage) -> None:
    corpus = Corpus(CONFIG, stage, seed=2)
    for index in range(200):
        document = corpus.document(index)
        assert document.prompt_tokens[0] == BOS_ID
        assert words(document.prompt_tokens)[-2:] == ["=", "?"]
        assert document.tokens.count(EOS_ID) == 1 and document.tokens[-1] == EOS_ID
        # rows of 128 tokens are what the quickstart trains on: none may be longer
        assert len(document.prompt_tokens) + len(document.tokens) <= 128


def test_a_corpus_is_a_source_also_in_another_process() -> None:
    """DALI's worker process gets it pickled."""
    corpus = Corpus(CONFIG, "web", seed=2)
    sent = pickle.loads(pickle.dumps(corpus))  # noqa: S301
    document = corpus.document(3)
    assert sent.sample(3) == corpus.sample(3) == (document.prompt_tokens, document.tokens)
