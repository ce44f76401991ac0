"""A folder beside the target that no conversion has left is neither written to nor deleted."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import RunError
from tools.convert.leftovers import Leftovers

PLAN = {"from": "a", "to": "b"}


def claim(to: Path) -> None:
    with Leftovers(to).claimed(PLAN):
        pass


def test_what_a_killed_conversion_left_is_gone_on_from(tmp_path):
    (tmp_path / "model.partial" / "target").mkdir(parents=True)  # killed at its very beginning
    claim(tmp_path / "model")
    (tmp_path / "model.partial" / "target" / "model.safetensors").write_text("half")
    claim(tmp_path / "model")


@pytest.mark.parametrize(
    "entry", ["paper.txt", "target/model.safetensors", "records/tax-2025.json"]
)
def test_somebody_s_folder_is_refused(tmp_path, entry):
    file = tmp_path / "model.partial" / entry
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(RunError, match=r"model\.partial .*no conversion has left it"):
        claim(tmp_path / "model")
    assert [each for each in (tmp_path / "model.partial").rglob("*") if each.is_file()] == [file]


@pytest.mark.parametrize("name", ["", "target", "lock", "plan.json"])
def test_a_link_is_refused(tmp_path, name):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "paper.txt").write_text("mine")
    if name:
        claim(tmp_path / "model")
        place = tmp_path / "model.partial" / name
        place.rmdir() if place.is_dir() else place.unlink()
        place.symlink_to(tmp_path / "mine" if name == "target" else tmp_path / "mine" / "paper.txt")
    else:
        (tmp_path / "model.partial").symlink_to(tmp_path / "mine")
    with pytest.raises(RunError, match="no conversion has left it"):
        claim(tmp_path / "model")
    assert (tmp_path / "mine" / "paper.txt").read_text() == "mine"
