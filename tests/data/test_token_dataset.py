"""Datasets on disk: what is written is read, and a damaged one is one sentence."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.token_dataset import TokenDataset, write_dataset
from engine.errors import RunError

SAMPLES = [([5, 6], [7, 8, 9]), ([1], [2]), ([3, 4], [])]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "set", SAMPLES, vocab_size=10)
    return tmp_path / "set"


@pytest.mark.parametrize("vocab_size", [70_000, 65_536, 100])
@given(data=st.data())
def test_what_is_written_is_read(tmp_path_factory, vocab_size: int, data) -> None:
    ids = st.integers(0, vocab_size - 1)
    samples = data.draw(
        st.lists(
            st.tuples(st.lists(ids, min_size=1, max_size=5), st.lists(ids, max_size=5)).filter(
                lambda sample: len(sample[0]) + len(sample[1]) > 1
            ),
            min_size=1,
            max_size=8,
        )
    )
    folder = tmp_path_factory.mktemp("written") / "set"
    write_dataset(folder, iter(samples), vocab_size)
    dataset = TokenDataset(folder)
    assert (len(dataset), dataset.vocab_size) == (len(samples), vocab_size)
    for index, (prompt, response) in enumerate(samples):
        found = dataset.sample(index)
        assert [part.tolist() for part in found] == [prompt, response]


def test_the_files_are_as_documented(folder: Path) -> None:
    assert json.loads((folder / "dataset.json").read_text()) == {
        "format": "r1-engine tokens 1",
        "vocab_size": 10,
        "samples": 3,
        "tokens": 9,
    }
    assert np.fromfile(folder / "tokens.bin", "<u2").tolist() == [5, 6, 7, 8, 9, 1, 2, 3, 4]
    assert np.fromfile(folder / "offsets.bin", "<i8").tolist() == [0, 5, 7, 9]
    assert np.fromfile(folder / "prompts.bin", "<i4").tolist() == [2, 1, 2]


def test_a_pickled_dataset_is_its_path(folder: Path) -> None:
    pickled = pickle.dumps(TokenDataset(folder))
    assert len(pickled) < 300
    assert pickle.loads(pickled).sample(0)[1].tolist() == [7, 8, 9]  # noqa: S301


def test_samples_are_views_of_the_map(folder: Path) -> None:
    prompt, response = TokenDataset(folder).sample(0)
    assert not prompt.flags.owndata
    assert not response.flags.writeable


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("dataset.json", None, "dataset.json: not found"),
        ("dataset.json", b"{", "not the header of a token dataset: content"),
        ("dataset.json", b'{"vocab_size": 10, "tokens": 9}', "header of a token dataset: samples"),
        (
            "dataset.json",
            b'{"format": "other", "vocab_size": 10, "samples": 3, "tokens": 9}',
            "header of a token dataset: format",
        ),
        ("tokens.bin", None, "tokens.bin: expected 18 bytes (9 numbers of 2), found no file"),
        ("tokens.bin", b"\0" * 16, "expected 18 bytes (9 numbers of 2), found 16 bytes"),
        ("offsets.bin", b"\0" * 40, "offsets.bin: expected 32 bytes"),
        ("offsets.bin", np.array([0, 5, 7, 8], "<i8").tobytes(), "belongs to other tokens"),
        ("offsets.bin", np.array([0, 8, 7, 9], "<i8").tobytes(), "belongs to other tokens"),
        ("offsets.bin", np.array([1, 5, 7, 9], "<i8").tobytes(), "belongs to other tokens"),
        ("prompts.bin", np.array([2, 1, 3], "<i4").tobytes(), "belongs to other samples"),
        ("prompts.bin", np.array([2, 0, 2], "<i4").tobytes(), "belongs to other samples"),
    ],
)
def test_a_damaged_dataset_is_one_sentence(
    folder: Path, file: str, content: bytes | None, message: str
) -> None:
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(RunError) as error:
        TokenDataset(folder)
    assert message in str(error.value)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "at least one sample"),
        ([*SAMPLES, ([], [1, 2])], "sample 3: expected a prompt"),
        ([([1], [])], "sample 0: expected a prompt and at least two tokens"),
        ([([1], [10])], "sample 0: expected token ids below 10"),
        ([([-1], [1])], "sample 0: expected token ids below 10"),
    ],
)
def test_what_cannot_be_read_is_not_written(tmp_path: Path, samples, message: str) -> None:
    with pytest.raises(RunError, match=message):
        write_dataset(tmp_path, samples, vocab_size=10)
    with pytest.raises(RunError, match="not wholly written"):
        TokenDataset(tmp_path)


def test_a_dataset_is_never_overwritten(folder: Path) -> None:
    with pytest.raises(RunError, match="expected no dataset there"):
        write_dataset(folder, SAMPLES, vocab_size=10)
