"""A checkpoint under another step's number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.checkpoint import loading
from engine.checkpoint.files import RECORD
from engine.errors import RunError


def test_a_checkpoint_renamed_to_another_step_is_refused_with_its_own(tmp_path: Path):
    folder = tmp_path / "000040"
    folder.mkdir()
    (folder / RECORD).write_text(json.dumps({"step": 15, "layout": {}, "progress": {}}))
    nothing: Any = None  # it does not come so far
    with pytest.raises(RunError, match=r"is of step 15, .* rename it to 000015"):
        loading.load(folder, nothing, seed=1)
