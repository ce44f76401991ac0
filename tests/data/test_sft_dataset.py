"""Tokenized once: found again, waited for, split, and what is too long."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from chat_models import model_folder

from engine.config.sft_data import SftDataConfig
from engine.data import sft_dataset
from engine.data.sft_dataset import SftDatasets, open_sft_datasets
from engine.data.sft_folder import SampleCounts, cached
from engine.data.tokenizer import Tokenizer
from engine.errors import RunError


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model"), "reasoning")


@pytest.fixture
def records(tmp_path: Path) -> Path:
    return write(tmp_path / "train.jsonl", 40)


def write(path: Path, count: int, first: int = 0) -> Path:
    """Record n asks for n; its answer has n letters and takes n + 1 tokens."""
    lines = (
        json.dumps({"prompt": f"{n:03}?", "response": "z" * n})
        for n in range(first + 1, first + count + 1)
    )
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def open_(
    records: Path, model: Path, folder: Path, *, rank: int = 0, **options: Any
) -> SftDatasets:
    config = SftDataConfig(train=(records,), **{"max_tokens": 500, **options})
    return open_sft_datasets(config, model, folder, rank=rank)


def numbers(datasets: SftDatasets, part: str, model: Path) -> list[int]:
    """Which records a part holds."""
    tokenizer, dataset = Tokenizer.load(model), getattr(datasets, part).tokens
    texts = [tokenizer.decode(dataset.sample(i)[0].tolist()) for i in range(len(dataset))]
    return [int(text.removeprefix("<|im_start|>user\n")[:3]) for text in texts]


def test_records_become_samples_in_the_order_of_the_files(tmp_path, records, model) -> None:
    found = open_(records, model, tmp_path / "data")
    assert found.validation is None
    assert numbers(found, "train", model) == [*range(1, 41)]
    assert len(found.train.tokens.sample(2)[1]) == 4
    assert found.train.tokens.vocab_size == 400
    line = f"train: 40 samples of 40 conversations ({found.train.folder})"
    assert found.train.line() == line
    assert found.train.folder.parent == tmp_path / "data"
    source = json.loads((found.train.folder / "source.json").read_text())
    assert source["paths"] == [str(records)] and source["max_tokens"] == 500
    assert sorted(file.name for file in (tmp_path / "data").iterdir()) == [found.train.folder.name]


def test_a_second_start_finds_it(tmp_path, records, model, monkeypatch) -> None:
    first = open_(records, model, tmp_path / "data")
    monkeypatch.setattr(sft_dataset, "Tokenizing", None)
    again = open_(records, model, tmp_path / "data")
    assert again.train.folder == first.train.folder
    moved = records.rename(tmp_path / "elsewhere.jsonl")
    assert open_(moved, model, tmp_path / "data").train.folder == first.train.folder


def test_whatever_changes_the_tokens_changes_the_folder(tmp_path, records, model) -> None:
    data = tmp_path / "data"
    folders = [open_(records, model, data).train.folder]
    folders.append(open_(records, model, data, max_tokens=400).train.folder)
    folders.append(open_(records, model, data, template="plain").train.folder)
    folders.append(open_(records, model, data, validation_share=0.2).train.folder)
    other = model_folder(tmp_path / "other", "chatml")
    folders.append(open_(records, other, data).train.folder)
    records.write_text(records.read_text().replace("001?", "010?"))
    folders.append(open_(records, model, data).train.folder)
    assert len(set(folders)) == len(folders)


def test_an_unfinished_dataset_is_made_again(tmp_path, records, model) -> None:
    whole = open_(records, model, tmp_path / "data").train
    for name in ("dataset.json", "tokens.bin", "source.json"):
        (whole.folder / name).unlink()
        again = open_(records, model, tmp_path / "data").train
        assert (again.folder, len(again.tokens)) == (whole.folder, 40)
    (whole.folder / "tokens.bin").write_bytes(b"half")
    assert len(open_(records, model, tmp_path / "data").train.tokens) == 40


def test_another_rank_waits_for_rank_0(tmp_path, records, model, monkeypatch) -> None:
    found: dict[int, SftDatasets] = {}
    waiting = threading.Event()
    is_whole = sft_dataset.is_whole

    def watched(place: Path) -> bool:
        if threading.current_thread() is thread:
            waiting.set()
        return is_whole(place)

    monkeypatch.setattr(sft_dataset, "is_whole", watched)

    def other_rank() -> None:
        found[1] = open_(records, model, tmp_path / "data", rank=1, validation_share=0.3)

    thread = threading.Thread(target=other_rank)
    thread.start()
    assert waiting.wait(20)
    found[0] = open_(records, model, tmp_path / "data", validation_share=0.3)
    thread.join(20)
    for part in ("train", "validation"):
        assert numbers(found[0], part, model) == numbers(found[1], part, model)
        assert getattr(found[0], part).folder == getattr(found[1], part).folder


def test_a_wait_has_a_name_and_a_limit(tmp_path, records, model) -> None:
    def message() -> str:
        with pytest.raises(RunError) as error:
            open_(records, model, tmp_path / "data", rank=1, wait_seconds=0.02)
        return str(error.value)

    assert "waited 0.02 s for the tokenized train data in" in message()
    assert message().endswith("rank 0, who writes it, has not begun")
    other = write(tmp_path / "other.jsonl", 3)
    there = open_(other, model, tmp_path / "data").train.folder
    assert f"there is {there.name}; do all ranks see the same files?" in message()
    name = message().split(" in ")[1].split(";")[0]
    half = tmp_path / "data" / f".{Path(name).name}.host.1"
    half.mkdir()
    (half / "tokens.bin").write_bytes(b"1234")
    assert "rank 0 has written 4 bytes of tokens, the last 0 s ago" in message()


def test_validation_files_and_a_share(tmp_path, records, model) -> None:
    other = write(tmp_path / "validation.jsonl", 5, first=100)
    found = open_(records, model, tmp_path / "data", validation=(other,))
    assert numbers(found, "train", model) == [*range(1, 41)]
    assert numbers(found, "validation", model) == [*range(101, 106)]
    found = open_(records, model, tmp_path / "data", validation_share=0.25)
    train, validation = (numbers(found, part, model) for part in ("train", "validation"))
    assert sorted(train + validation) == [*range(1, 41)]
    assert 3 < len(validation) < 20
    assert found.train.counts.conversations == len(train)


def test_too_long_samples_are_named(tmp_path, records, model) -> None:
    longest = sum(map(len, open_(records, model, tmp_path / "a").train.tokens.sample(39)))
    with pytest.raises(RunError) as error:
        open_(records, model, tmp_path / "b", max_tokens=longest - 2)
    assert str(error.value) == (
        f"data.max_tokens: expected samples of at most {longest - 2} tokens, found"
        f" {records}, line 39 ({longest - 1} tokens); {records}, line 40 ({longest} tokens);"
        f" raise it to {longest}, or drop them with data.too_long=drop"
    )
    assert list((tmp_path / "b").iterdir()) == []  # nothing half is left
    with pytest.raises(RunError, match=r"line 14 .* and 25 more; raise it"):
        open_(records, model, tmp_path / "b", max_tokens=longest - 30)


def test_too_long_samples_are_dropped_and_counted(tmp_path, records, model) -> None:
    longest = sum(map(len, open_(records, model, tmp_path / "a").train.tokens.sample(39)))
    options: dict[str, Any] = {"max_tokens": longest - 2, "too_long": "drop"}
    for _ in range(2):  # written, and found again
        train = open_(records, model, tmp_path / "b", **options).train
        assert (len(train.tokens), train.counts) == (38, SampleCounts(40, 38, 2, longest))
        assert "38 samples of 40 conversations, 2 dropped as too long" in train.line()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"max_tokens": 2, "too_long": "drop"},
            "expected conversations to learn, found none (40 read, 40 answers too long)",
        ),
        (
            {"validation_share": 1e-9},
            "for validation, found none (0 read, 0 answers too long, data.validation_share=1e-09)",
        ),
    ],
)
def test_nothing_left_is_an_error(tmp_path, records, model, options, message) -> None:
    with pytest.raises(RunError) as error:
        open_(records, model, tmp_path / "data", **options)
    assert message in str(error.value)


def test_a_bad_record_leaves_nothing_behind(tmp_path, records, model) -> None:
    records.write_text(records.read_text() + "{}\n")
    with pytest.raises(RunError, match=r"train\.jsonl, line 41: key 'prompt' is missing"):
        open_(records, model, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_every_wrong_record_counts_in_the_message(tmp_path, records, model) -> None:
    records.write_text("7\n" + records.read_text() + '{}\n{"prompt": "a", "response": 3}\n')
    with pytest.raises(RunError, match=r"line 1: .* found a JSON number .* \(2 more are wrong\)"):
        open_(records, model, tmp_path / "data")


def test_what_the_cache_has_is_not_made_again(tmp_path, records, model, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = open_(records, model, tmp_path / "first").train
    place = cached(made.folder.name)
    assert place is not None and not place.exists()  # a run keeps it in its own folder
    shutil.copytree(made.folder, place)
    monkeypatch.setattr(sft_dataset, "Tokenizing", None)
    taken = open_(records, model, tmp_path / "second").train
    assert taken.folder == tmp_path / "second" / made.folder.name
    assert taken.counts == made.counts
    assert numbers(SftDatasets(taken, None), "train", model) == [*range(1, 41)]
    shutil.rmtree(place)
    assert len(open_(records, model, tmp_path / "second").train.tokens) == 40


@pytest.mark.parametrize("name", ["dataset.json", "tokens.bin", "source.json"])
def test_half_of_a_cached_dataset_is_not_taken(tmp_path, records, model, monkeypatch, name) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = open_(records, model, tmp_path / "first").train
    place = cached(made.folder.name)
    shutil.copytree(made.folder, place)
    (place / name).unlink()
    assert len(open_(records, model, tmp_path / "second").train.tokens) == 40


def test_a_cache_on_a_disk_without_links_is_copied(tmp_path, records, model, monkeypatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = open_(records, model, tmp_path / "first").train
    shutil.copytree(made.folder, cached(made.folder.name))
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(sft_dataset, "Tokenizing", None)
    assert len(open_(records, model, tmp_path / "second").train.tokens) == 40
