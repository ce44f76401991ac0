"""A run measures the same in every layout: mean loss, log-probabilities, the base's gate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.config.layout import LayoutConfig
from engine.data.token_dataset import write_dataset
from tools.benchmarks.parity.models import DENSE, GQA_MOE
from tools.benchmarks.rank_pool import RankPool

pytestmark = pytest.mark.slow

ONE = LayoutConfig(processes=1)
LAYOUTS = {
    "dp2": LayoutConfig(processes=2),
    "tp2": LayoutConfig(processes=2, tp=2),
    "pp2": LayoutConfig(processes=2, pp=2),
    "cp2": LayoutConfig(processes=2, cp=2),
    "ep2": LayoutConfig(processes=2, ep=2),
    "tp2 pp2": LayoutConfig(processes=4, tp=2, pp=2),
}
WORDS = GQA_MOE["vocab_size"]
PROBLEMS = 15
CLOSE = 1e-5


def on_ranks(layout: LayoutConfig, *, what: str, **arguments: Any) -> Any:
    """On a rank of the pool: call the function ``what`` of ``training_data_cases``."""
    return getattr(import_module("training_data_cases"), what)(layout, **arguments)


@pytest.fixture(scope="module")
def pool() -> Iterator[RankPool]:
    with RankPool(4) as started:
        yield started


@pytest.fixture(scope="module")
def samples() -> list[tuple[list[int], list[int]]]:
    """Seventeen samples of very different lengths, so that data-parallel shares differ."""
    generator = torch.Generator().manual_seed(7)
    lengths = torch.randint(3, 60, (17,), generator=generator).tolist()
    made = [torch.randint(WORDS, (length,), generator=generator).tolist() for length in lengths]
    return [(tokens[: len(tokens) // 3], tokens[len(tokens) // 3 :]) for tokens in made]


@pytest.fixture(scope="module")
def dataset(samples: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "validation"
    write_dataset(folder, samples, WORDS)
    return folder


@pytest.fixture(scope="module")
def measure(pool: RankPool, dataset: Path, samples: list[Any]) -> Any:
    """layout -> mean loss, and log-probabilities by sample; computed when first asked for."""
    known: dict[str, tuple[float, dict[int, list[float]]]] = {}

    def of(layout: LayoutConfig) -> tuple[float, dict[int, list[float]]]:
        if repr(layout) not in known:
            run = {"model": GQA_MOE, "dataset": dataset, "samples": samples}
            answers = pool.run(on_ranks, layout, what="measured", **run)
            (loss,) = {loss for losses, _ in answers for loss in losses}  # equal on all ranks
            found = [one for _, by_sample in answers for one in by_sample.items()]
            assert len(found) == len(dict(found))  # each sample on exactly one rank
            known[repr(layout)] = loss, dict(found)
        return known[repr(layout)]

    return of


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mean_loss_and_log_probabilities_are_those_of_one_process(measure, samples, layout):
    loss, logp = measure(ONE)
    other_loss, other_logp = measure(LAYOUTS[layout])
    assert other_loss == pytest.approx(loss, abs=CLOSE)
    assert sorted(logp) == sorted(other_logp) == list(range(len(samples)))
    for index, (_, response) in enumerate(samples):
        assert len(logp[index]) == len(response)
        assert other_logp[index] == pytest.approx(logp[index], abs=CLOSE)


def test_mean_loss_is_that_of_all_response_tokens_together(measure):
    loss, logp = measure(ONE)
    tokens = [value for values in logp.values() for value in values]
    assert loss == pytest.approx(-sum(tokens) / len(tokens), abs=CLOSE)
    assert loss > math.log(WORDS) - 1  # of random weights


def test_the_gates_probability_is_that_of_one_process(pool):
    run = {"model": DENSE, "problems": PROBLEMS}
    (one,) = pool.run(on_ranks, ONE, what="gated", **run)
    assert 0 < one < 1
    for layout in (LAYOUTS["dp2"], LAYOUTS["tp2 pp2"]):
        for found in pool.run(on_ranks, layout, what="gated", **run):
            assert found == pytest.approx(one, rel=CLOSE)
