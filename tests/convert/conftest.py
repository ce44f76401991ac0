"""Source folders that every test of this folder may read, and none may change."""

from __future__ import annotations

from pathlib import Path

import pytest
from random_models import CONFIGS, random_folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A Hugging Face folder for each of CONFIGS."""
    return {name: random_folder(tmp_path_factory.mktemp("source"), name) for name in CONFIGS}


@pytest.fixture(scope="session")
def mixture(folders: dict[str, Path]) -> Path:
    return folders["qwen3_moe"]
