"""Whether a second start takes the base that is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.config.reader.loading import load
from engine.errors import RunError
from recipes.base import is_made
from recipes.base_config import BaseConfig

QUICKSTART = Path(__file__).parents[2] / "recipes" / "configs" / "quickstart" / "base.yaml"


def config(run_dir: Path, *overrides: str) -> BaseConfig:
    return load(BaseConfig, QUICKSTART, [f"run_dir={run_dir}", *overrides])


@pytest.fixture
def made(tmp_path: Path) -> Path:
    made = config(tmp_path)
    made.result_file.write_text(json.dumps({"config": made.model_dump(mode="json")}))
    return tmp_path


def test_nothing_is_made_at_first(tmp_path: Path) -> None:
    assert not is_made(config(tmp_path))


def test_the_loader_is_no_part_of_what_was_made(made: Path) -> None:
    """Both loaders give the same batches, and so the same base."""
    assert is_made(config(made, "data.loader=dali", "data.prefetch=5"))


def test_another_seed_would_make_another_base(made: Path) -> None:
    with pytest.raises(RunError, match="made with another seed"):
        is_made(config(made, "seed=2"))
