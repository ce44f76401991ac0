"""What every loader promises, held by the plain one and by DALI alike, and DALI's own faults."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch
from loader_sources import BadAt, Counting, Slow
from same_batches import same

from engine.config.trainer import LoadingConfig
from engine.data import loader as loader_module
from engine.data.batch_builder import Packing
from engine.data.batches import BatchReader
from engine.data.loader import Loader, open_loader
from engine.data.order import Shuffled, in_turn
from engine.data.token_dataset import TokenDataset, write_dataset
from engine.errors import RunError

CPU = torch.device("cpu")
Open = Callable[..., Loader]


@pytest.fixture(params=["plain", pytest.param("dali", marks=pytest.mark.slow)])
def open_one(request) -> Iterator[Open]:
    """Open a loader of either kind; after the test, everything is closed and nothing is left."""
    opened: list[Loader] = []

    def open_(reader: BatchReader, position: int = 0, ahead: int = 2) -> Loader:
        config = LoadingConfig(loader=request.param, prefetch=ahead)
        opened.append(open_loader(config, reader, position, CPU))
        return opened[-1]

    yield open_
    for loader in opened:
        loader.close()
    opened.clear()
    assert dali_workers() == []
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())


def dali_workers() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def one_by_one(source) -> BatchReader:
    return BatchReader(source, in_turn, 1, Packing(0, 1, tokens_per_microbatch=8))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> TokenDataset:
    """100 samples with a long tail of lengths."""
    draw = random.Random(3)

    def sample() -> tuple[list[int], list[int]]:
        response = min(60, int(draw.lognormvariate(2, 1)))
        return [draw.randrange(500)], [draw.randrange(500) for _ in range(1 + response)]

    folder = tmp_path_factory.mktemp("dataset") / "set"
    write_dataset(folder, (sample() for _ in range(100)), vocab_size=500)
    return TokenDataset(folder)


@pytest.fixture(scope="module")
def reader(dataset: TokenDataset) -> BatchReader:
    """Rank 1 of 2 under context parallelism, with 24 samples a step: epochs end within steps."""
    packing = Packing(1, 2, tokens_per_microbatch=80, row_multiple=8, sample_multiple=4)
    return BatchReader(dataset, Shuffled(len(dataset), seed=7), 24, packing)


def test_batches_are_the_readers_from_any_saved_position(
    reader: BatchReader, open_one: Open
) -> None:
    expected, position = [], 0
    for _ in range(10):
        expected.append(reader.read(position))
        position = expected[-1].next_position
    assert len({len(batch.rows) for batch in expected}) > 1  # the number of rows does vary
    first = open_one(reader)
    found = [next(first) for _ in range(6)]
    first.close()
    going_on = open_one(reader, position=found[-1].next_position)
    found += [next(going_on) for _ in range(4)]
    going_on.close()
    assert all(map(same, found, expected))  # after closing: a batch's memory is its own


@pytest.mark.slow
def test_both_loaders_serve_identical_batches(reader: BatchReader) -> None:
    with (
        open_loader(LoadingConfig(loader="plain"), reader, 48, CPU) as plain,
        open_loader(LoadingConfig(loader="dali"), reader, 48, CPU) as dali,
    ):
        assert all(same(next(plain), next(dali)) for _ in range(5))


def test_an_error_of_the_source_comes_out_as_it_is(open_one: Open) -> None:
    loader = open_one(one_by_one(BadAt(5)))
    good = 0
    with pytest.raises(RunError) as error:
        while next(loader):
            good += 1
    assert str(error.value) == "sample 5 is bad"
    assert good == 5


def test_an_error_in_the_first_batch_comes_out_too(open_one: Open) -> None:
    with pytest.raises(RunError, match="sample 0 is bad"):
        next(open_one(one_by_one(BadAt(0))))


def test_it_reads_so_many_batches_ahead_and_no_more(open_one: Open, tmp_path: Path) -> None:
    ahead = 3
    loader = open_one(one_by_one(Counting(tmp_path)), ahead=ahead)
    next(loader)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 1 + ahead and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    read = {int(file.name) for file in tmp_path.iterdir()}
    in_dalis_hands = 2
    assert read == set(range(len(read)))
    assert 1 + ahead <= len(read) <= 1 + ahead + in_dalis_hands


def test_closing_does_not_wait_for_what_is_read_ahead(open_one: Open) -> None:
    loader = open_one(one_by_one(Slow(0.3)), ahead=50)
    next(loader)
    begun = time.monotonic()
    loader.close()
    assert time.monotonic() - begun < 10  # what is read ahead would take 15 seconds
    loader.close()  # a second time does nothing


@pytest.mark.slow
def test_a_dead_worker_of_dali_is_an_error() -> None:
    with open_loader(LoadingConfig(loader="dali"), one_by_one(Slow(0.01)), 0, CPU) as loader:
        next(loader)
        (worker,) = dali_workers()
        worker.kill()
        with pytest.raises(RunError, match=r"loading\.loader: DALI cannot go on"):
            for _ in range(20):
                next(loader)


@pytest.mark.slow
def test_dalis_worker_does_not_outlive_a_killed_trainer() -> None:
    program = Path(__file__).with_name("loading_trainer.py")
    with subprocess.Popen(
        [sys.executable, str(program)], stdout=subprocess.PIPE, text=True
    ) as trainer:
        assert trainer.stdout is not None
        (worker,) = (psutil.Process(int(pid)) for pid in trainer.stdout.readline().split())
        trainer.kill()
        psutil.wait_procs([worker], timeout=60)
        assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


def test_a_machine_without_dali_is_told_what_to_do(monkeypatch, reader: BatchReader) -> None:
    monkeypatch.setattr(loader_module, "find_spec", lambda name: None)
    with pytest.raises(RunError, match=r"loading.loader: dali needs the package nvidia-dali"):
        open_loader(LoadingConfig(loader="dali"), reader, 0, CPU)


@pytest.mark.slow
def test_the_plain_loader_imports_no_dali() -> None:
    program = "import sys, engine.data.loader; assert 'nvidia.dali' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
