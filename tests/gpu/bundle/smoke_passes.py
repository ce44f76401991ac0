"""Our own models in ranks of a pool, after the operations that they are made of."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from smoke_checks import check

LIMIT_SECONDS = 90.0
"""Of one program in a pool."""


@check
def our_layers() -> str:
    """A forward and a backward pass of each small model in bfloat16."""
    from wide_models import WIDE_MODELS

    return passes_of(list(WIDE_MODELS), one_rank(), layers="engine")


@check
def a_checkpoint_beside_training() -> str:
    """Weights change while they are written, in a process forked from one that uses the GPU."""
    from layer_cases import load, save
    from wide_models import WIDE_MODELS

    from engine.config.layout import LayoutConfig

    one, given = LayoutConfig(processes=1), {"layers": "engine", "dtype": "bfloat16"}
    with tempfile.TemporaryDirectory() as folder:
        given |= {"model": WIDE_MODELS["moe gqa"], "folder": Path(folder)}
        saved = one_rank().run(save, one, LIMIT_SECONDS, **given, asynchronous=True)[0]
        _, loaded = one_rank().run(load, one, LIMIT_SECONDS, **given)[0]
    wrong = [key for key in saved if not saved[key].equal(loaded[key])]
    assert set(saved) == set(loaded) and not wrong, f"other weights: {wrong}"
    return f"{len(saved)} tensors, equal"


@check
def two_ranks_on_one_gpu() -> str:
    """Without this no layout can be compared: NCCL must accept both on one device."""
    from tools.benchmarks.rank_pool import RankPool

    with RankPool(2, {"NCCL_DEBUG": "WARN"}) as pool:
        return passes_of(["dense"], pool, layers="torch")


@cache
def one_rank() -> Any:
    """A pool of one rank, which serves all checks and ends with this process."""
    from tools.benchmarks.rank_pool import RankPool

    return RankPool(1).__enter__()


def passes_of(models: list[str], pool: Any, *, layers: str) -> str:
    """Return what a forward and a backward pass of each model, tensor-parallel, gave.

    Raises:
        AssertionError: a pass failed or gave a number that is not finite; the others were run.
    """
    from layer_cases import passes
    from wide_models import WIDE_MODELS

    from engine.config.layout import LayoutConfig

    layout, said, failed = LayoutConfig(processes=pool.ranks, tp=pool.ranks), [], False
    for name in models:
        given = {"layers": layers, "model": WIDE_MODELS[name], "dtype": "bfloat16"}
        try:
            found = pool.run(passes, layout, LIMIT_SECONDS, **given)[0]
            for tensor in (found.logp, *found.gradients.values()):
                assert tensor.isfinite().all(), "a number is not finite"
            said.append(f"{name}: mean log-probability {float(found.logp.mean()):.3f}")
        except Exception as error:
            failed = True
            said.append(f"{name}: FAILED\n{error}")
    assert not failed, "\n".join(said)
    return "; ".join(said)
