"""Of pushed weights only folders that a push has named are ever deleted."""

from __future__ import annotations

from pathlib import Path

from engine.weights.versions import remove_versions, version_folder


def made(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "model.safetensors").write_text(name)
    return root


def names(root: Path) -> list[str]:
    return sorted(entry.name for entry in root.iterdir())


def test_older_versions_and_what_a_killed_push_left_go(tmp_path):
    root = made(
        tmp_path / "weights", "000007", "000008", "000009.partial", "000008.replaced", "1234567"
    )
    remove_versions(root, keep=8)
    assert names(root) == ["000008"] and version_folder(root, 8) == root / "000008"
    remove_versions(root)
    assert not root.exists()


def test_what_somebody_keeps_there_stays(tmp_path):
    root = made(tmp_path / "weights", "000001", "000002", "best", "000001.backup", "12")
    (root / "notes.txt").write_text("mine")
    remove_versions(root, keep=2)
    assert names(root) == ["000001.backup", "000002", "12", "best", "notes.txt"]
    remove_versions(root)
    assert names(root) == ["000001.backup", "12", "best", "notes.txt"]


def test_no_link_is_followed_and_none_is_removed(tmp_path):
    elsewhere = made(tmp_path / "elsewhere", "000001", "000002")
    (tmp_path / "weights").symlink_to(elsewhere)
    remove_versions(tmp_path / "weights")
    assert names(tmp_path / "weights") == ["000001", "000002"]
    root = made(tmp_path / "run" / "weights", "000003")
    (root / "000002").symlink_to(elsewhere / "000002")
    remove_versions(root)
    assert names(root) == ["000002"] and names(elsewhere) == ["000001", "000002"]


def test_a_run_that_pushed_nothing_has_nothing_to_remove(tmp_path):
    remove_versions(tmp_path / "weights")
    assert not (tmp_path / "weights").exists()
