"""Both loaders' copies to a GPU give the reader's batches."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from engine.config.trainer import LoadingConfig
from engine.data.batch_builder import Packing
from engine.data.batches import BatchReader
from engine.data.loader import open_loader
from engine.data.order import Shuffled
from engine.data.token_dataset import TokenDataset, write_dataset

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture
def reader(tmp_path: Path) -> BatchReader:
    draw = random.Random(1)
    lengths = [draw.randrange(2, 4000) for _ in range(200)]
    samples = (([1], [draw.randrange(500) for _ in range(length - 1)]) for length in lengths)
    write_dataset(tmp_path / "set", samples, vocab_size=500)
    dataset = TokenDataset(tmp_path / "set")
    packing = Packing(0, 2, tokens_per_microbatch=8192)
    return BatchReader(dataset, Shuffled(200, seed=1), 32, packing)


@pytest.mark.parametrize("kind", ["plain", "dali"])
def test_batches_on_the_gpu_are_the_readers(
    reader: BatchReader, kind: Literal["plain", "dali"]
) -> None:
    """A kernel that keeps the current stream busy makes a copy that nobody waits for show."""
    device = torch.device("cuda", 0)
    found = []
    busy = torch.ones(4096, 4096, device=device)
    with open_loader(LoadingConfig(loader=kind), reader, 0, device) as loader:
        for _ in range(20):
            batch = next(loader)
            assert {row.packed.tokens.device for row in batch.rows} == {device}
            busy = busy @ busy / 4096
            # read on the current stream before the host does
            found.append(replace(batch, rows=[row.to("cpu") for row in batch.rows]))
    torch.cuda.synchronize()
    position = 0
    for batch in found:
        expected = reader.read(position)
        position = expected.next_position
        assert replace(batch, rows=[]) == replace(expected, rows=[])
        for row, wanted in zip(batch.rows, expected.rows, strict=True):
            assert row.members == wanted.members and row.weights.equal(wanted.weights)
            for name, value in vars(wanted.packed).items():
                same = getattr(row.packed, name)
                assert same.equal(value) if isinstance(value, torch.Tensor) else same == value
