from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def artefacts(request: pytest.FixtureRequest) -> Path:
    """The folder for what a person should be able to look at after a test run (R1_ARTEFACTS)."""
    folder = Path(os.environ.get("R1_ARTEFACTS", request.config.rootpath / "artefacts"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
