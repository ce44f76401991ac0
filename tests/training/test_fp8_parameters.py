"""FP8 parameters under FP32 masters, on tensors that stand in for Transformer Engine's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fp8_parameter_cases import (
    from_a_folder,
    plain_copies_at_once,
    restarted,
    trained_and_resumed,
    write_folder,
)
from stand_in_fp8 import of
from torch import Tensor

from engine.config.layout import LayoutConfig
from tools.benchmarks.parity.models import GQA_MOE
from tools.benchmarks.rank_pool import RankPool

TWO = LayoutConfig(processes=2)
TWO_STAGES = LayoutConfig(processes=2, pp=2)


@pytest.fixture(scope="module")
def pool() -> Iterator[RankPool]:
    with RankPool(4) as pool:
        yield pool


@pytest.fixture(scope="module")
def folder(pool: RankPool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tmp_path_factory.mktemp("model") / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(GQA_MOE))
    pool.run(write_folder, LayoutConfig(processes=1), folder=model)
    return model


def rounded(values: Tensor) -> Tensor:
    """``values`` through FP8 and back."""
    return of(values).dequantize()


def joined(ranks: list[dict[str, Any]], what: str) -> dict[str, Tensor]:
    """Shares of data-parallel ranks, flat, one after the other."""
    names = {name for rank in ranks for name in rank[what]}
    return {n: torch.cat([r[what][n] for r in ranks if n in r[what]]) for n in names}


def is_in_fp8(key: str) -> bool:
    return "linear_" in key and "layer_norm" not in key and key.endswith("weight")


@pytest.mark.slow
def test_masters_start_from_what_the_folder_says_and_servers_get_what_is_computed_with(
    pool: RankPool, folder: Path
):
    ranks = pool.run(from_a_folder, TWO, folder=folder)
    exact, pushed = ranks[0]["exact"], ranks[0]["pushed"]
    for key, values in exact.items():
        expected = rounded(values) if is_in_fp8(key[0]) else values
        assert pushed[key].equal(expected), key
        assert ranks[0]["reference"][key].equal(expected), key
    masters = joined(ranks, "masters")
    assert set(masters) == set(ranks[0]["parameters"])
    for name, values in ranks[0]["parameters"].items():
        assert masters[name].equal(values.float().flatten()), name
        assert not rounded(values).equal(values)


@pytest.mark.slow
def test_a_piece_of_a_split_tensor_is_rounded_on_its_own_rank(pool: RankPool, folder: Path):
    layout = LayoutConfig(processes=4, tp=2, ep=2)
    ranks = pool.run(from_a_folder, layout, folder=folder)
    for key, values in ranks[0]["exact"].items():
        error = (ranks[0]["pushed"][key] - values).abs()
        assert (error <= values.abs() / 16 + values.abs().max() / 2**15).all(), key
        assert bool(error.any()) == is_in_fp8(key[0]), key
        assert ranks[0]["reference"][key].equal(ranks[0]["pushed"][key])


@pytest.mark.slow
def test_a_stream_makes_one_plain_copy_of_each_fp8_parameter_and_holds_one_at_a_time(
    pool: RankPool, folder: Path
):
    for most, made, parameters in pool.run(plain_copies_at_once, TWO_STAGES, folder=folder):
        assert most == 1 and made == parameters > 20


@pytest.mark.slow
def test_an_optimizer_of_fp8_parameters_does_not_start_again(pool: RankPool, folder: Path):
    for sentence, goes_on in pool.run(restarted, LayoutConfig(processes=1), folder=folder):
        assert sentence.startswith("training.fp8_parameters: expected false")
        assert goes_on


@pytest.mark.slow
def test_an_update_moves_masters_and_a_resumed_run_has_the_same_bytes(
    pool: RankPool, folder: Path, tmp_path: Path
):
    ranks = pool.run(trained_and_resumed, TWO, folder=folder, saves=tmp_path / "saves")
    first = ranks[0]
    masters, resumed = joined(ranks, "masters"), joined(ranks, "resumed masters")
    for name, parameter in first["parameters"].items():
        assert parameter.equal(rounded(masters[name].reshape(parameter.shape))), name
        assert masters[name].equal(resumed[name]), name
    moved = {
        key for key, values in first["trained"].items() if not values.equal(first["start"][key])
    }
    assert any(is_in_fp8(key) for key, _ in moved)
    assert all(rank["same bytes"] and rank["same bytes later"] for rank in ranks)
