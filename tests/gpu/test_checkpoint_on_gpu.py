"""Saved under Transformer Engine's layers, loaded under ours, and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from layer_cases import Layers, load, save
from wide_models import WIDE_MODELS

from engine.config.layout import LayoutConfig
from engine.platform import accelerator
from tools.benchmarks.rank_pool import RankPool

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.skipif(
        not accelerator.has_transformer_engine(), reason="Transformer Engine cannot be imported"
    ),
]

ONE = LayoutConfig(processes=1)


@pytest.mark.parametrize("model", WIDE_MODELS)
@pytest.mark.parametrize(("saver", "loader"), [("engine", "torch"), ("torch", "engine")])
def test_a_checkpoint_of_one_kind_of_layers_loads_into_the_other(
    rank: RankPool, tmp_path: Path, model: str, saver: Layers, loader: Layers
) -> None:
    given = {"model": WIDE_MODELS[model], "dtype": "bfloat16", "folder": tmp_path}
    saved = rank.run(save, ONE, layers=saver, **given)[0]
    before, after = rank.run(load, ONE, layers=loader, **given)[0]
    assert set(before) == set(after) == set(saved)
    embedding = ("embedding.word_embeddings.weight", None)
    assert not before[embedding].equal(saved[embedding])
    for key, weight in saved.items():
        assert after[key].equal(weight), key


@pytest.mark.parametrize("model", WIDE_MODELS)
def test_a_checkpoint_of_the_gpu_loads_where_there_is_none(
    rank: RankPool, tmp_path: Path, model: str
) -> None:
    given = {"model": WIDE_MODELS[model], "dtype": "bfloat16", "folder": tmp_path}
    saved = rank.run(save, ONE, layers="engine", **given)[0]
    with RankPool(1, {"CUDA_VISIBLE_DEVICES": ""}) as without:
        _, after = without.run(load, ONE, layers="torch", **given)[0]
    assert set(after) == set(saved)
    for key, weight in saved.items():
        assert after[key].equal(weight), key
