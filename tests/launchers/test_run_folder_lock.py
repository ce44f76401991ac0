"""A launcher locks no folder that is somebody's, whatever type a recipe gives its ``run_dir``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.errors import RunError
from launchers.run_folder import lock


def test_somebody_s_folder_is_not_locked(tmp_path: Path):
    (tmp_path / "garden.csv").write_text("roses")
    with pytest.raises(RunError, match=r"^run_dir: expected a new folder.*garden\.csv"):
        lock(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["garden.csv"]


@pytest.mark.parametrize("name", ["launcher.lock", "logs"])
def test_no_link_is_locked_or_written_through(tmp_path: Path, name: str):
    run, mine = tmp_path / "run", tmp_path / "mine"
    os.close(lock(run))
    mine.write_text("a file of mine, longer than a pid")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(mine)
    with pytest.raises(RunError, match=r"^run_dir: expected no links"):
        lock(run)
    assert mine.read_text() == "a file of mine, longer than a pid"


def test_a_folder_that_was_locked_once_can_be_locked_again(tmp_path: Path):
    for _ in range(2):
        os.close(lock(tmp_path / "deep" / "run"))
