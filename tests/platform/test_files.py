"""Nothing is written or deleted through a link, and only what is named so is found to delete."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import RunError
from engine.platform.files import folders_named, open_to_append, remove_folder, replace_text


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A folder of somebody, with a file."""
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "letter").write_text("for you")
    return folder


@pytest.mark.parametrize("name", ["notes", "notes.part"])
def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path, precious, name):
    (tmp_path / name).symlink_to(precious / "letter")
    replace_text(tmp_path / "notes", "new")
    assert (tmp_path / "notes").read_text() == "new" and not (tmp_path / "notes").is_symlink()
    assert (precious / "letter").read_text() == "for you"
    assert not (tmp_path / "notes.part").is_symlink()


def test_what_a_killed_writer_left_is_replaced(tmp_path):
    (tmp_path / "notes.part").write_text("half of something longer")
    replace_text(tmp_path / "notes", "new")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("notes", "new")]


def test_lines_are_added_to_a_file_and_to_no_link(tmp_path, precious):
    for line in (b"one\n", b"two\n"):
        with open_to_append(tmp_path / "log") as file:
            file.write(line)
    assert (tmp_path / "log").read_text() == "one\ntwo\n"
    (tmp_path / "other.log").symlink_to(precious / "letter")
    with pytest.raises(OSError, match="symbolic link"):
        open_to_append(tmp_path / "other.log")
    assert (precious / "letter").read_text() == "for you"


def test_only_folders_of_that_whole_name_are_found(tmp_path, precious):
    for name in ("000001", "000002.old", "000003.mine", "my-000004", "12"):
        (tmp_path / "weights" / name).mkdir(parents=True)
    (tmp_path / "weights" / "000005").write_text("a file")
    (tmp_path / "weights" / "000006").symlink_to(precious)
    found = folders_named(r"[0-9]{6}(\.old)?", tmp_path / "weights")
    assert sorted(folder.name for folder in found) == ["000001", "000002.old"]


def test_a_linked_or_missing_folder_holds_nothing_to_delete(tmp_path, precious):
    (precious / "000001").mkdir()
    (tmp_path / "weights").symlink_to(precious)
    assert folders_named(".*", tmp_path / "weights") == folders_named(".*", tmp_path / "no") == []


def test_a_folder_is_not_removed_through_a_link(tmp_path, precious):
    (tmp_path / "itself").symlink_to(precious)
    (tmp_path / "above").symlink_to(tmp_path)
    for way in (tmp_path / "itself", tmp_path / "above" / "precious"):
        with pytest.raises(RunError, match=f"cannot remove {way}"):
            remove_folder(way)
    (precious.parent / "run").mkdir()
    (tmp_path / "run" / "inside").symlink_to(precious)
    remove_folder(tmp_path / "run")
    assert (precious / "letter").read_text() == "for you" and not (tmp_path / "run").exists()
