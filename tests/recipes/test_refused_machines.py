"""What this machine cannot compute is refused by name, before any process is started."""

from pathlib import Path

import pytest
import torch

from engine.config.reader.loading import load
from engine.errors import RunError
from launchers.machine import check_machine
from recipes import base, zero

QUICKSTART = Path(__file__).parents[2] / "recipes" / "configs" / "quickstart"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine may have FP8")
@pytest.mark.parametrize("recipe", [zero, base], ids=["zero", "base"])
def test_fp8_needs_a_gpu(recipe, tmp_path):
    name = recipe.__name__.rpartition(".")[2]
    config = load(
        recipe.Config,
        QUICKSTART / f"{name}.yaml",
        [f"run_dir={tmp_path}", "training.dtype=bfloat16", "training.fp8=blockwise"],
    )
    with pytest.raises(RunError, match=r"training\.fp8: blockwise needs a GPU, found none"):
        check_machine(config)
    assert not list(tmp_path.iterdir())
