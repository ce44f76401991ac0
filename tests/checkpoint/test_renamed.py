"""A checkpoint under another step's number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.checkpoint.folders import RECORD, CheckpointFolders


@pytest.mark.parametrize("record", ["", "[]", "{}", None, json.dumps({"step": 40})])
def test_only_a_record_of_another_step_makes_a_wrong_name(tmp_path: Path, record: str | None):
    folders = CheckpointFolders(tmp_path, keep=1)
    folders.folder(40).mkdir()
    if record is not None:
        (folders.folder(40) / RECORD).write_text(record)
    assert folders.misnamed(40) is None


def test_a_renamed_checkpoint_is_told_with_its_own_step(tmp_path: Path):
    folders = CheckpointFolders(tmp_path, keep=1)
    folders.folder(15).mkdir()
    (folders.folder(15) / RECORD).write_text(json.dumps({"step": 15}))
    folders.folder(15).rename(folders.folder(40))
    assert folders.misnamed(40) == (
        f"checkpoint {tmp_path}/000040 is of step 15, not of that of its name; rename it"
    )
