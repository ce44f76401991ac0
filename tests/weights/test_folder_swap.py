"""A folder takes another's place; wherever its process is killed or refused, one is whole."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.weights import folder_swap
from engine.weights.folder_swap import begin, finish, give_up, partial_of


class Killed(BaseException):
    """Ends the process at one point."""


def write(folder: Path, content: str) -> None:
    begin(folder)
    for name in ("one", "two"):
        (partial_of(folder) / name).write_text(content)


def contents(folder: Path) -> set[str]:
    return {(folder / name).read_text() for name in ("one", "two")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that holds the first version."""
    place = tmp_path / "weights"
    write(place, "first")
    finish(place, durable=False)
    return place


def counted(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> None:
    """Call ``act`` with its number, from 1, before each rename and each removal of a file tree."""
    calls = 0

    def before(function: Callable) -> Callable:
        def wrapped(*arguments: object, **options: object) -> object:
            nonlocal calls
            calls += 1
            act(calls)
            return function(*arguments, **options)

        return wrapped

    monkeypatch.setattr(Path, "rename", before(Path.rename))
    monkeypatch.setattr(shutil, "rmtree", before(shutil.rmtree))


@pytest.mark.parametrize("killed_at", [1, 2, 3])
def test_of_a_killed_process_one_folder_is_whole_and_the_next_export_goes_on(
    folder, monkeypatch, killed_at
):
    def kill(number: int) -> None:
        if number == killed_at:
            raise Killed

    write(folder, "second")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        counted(patch, kill)
        finish(folder, durable=False)
    old = folder.with_name("weights.replaced")
    assert contents(folder if folder.exists() else old) == {"second" if killed_at == 3 else "first"}
    assert folder.exists() == (killed_at != 2)

    write(folder, "third")
    assert contents(folder) == {"second" if killed_at == 3 else "first"}  # while it is written
    finish(folder, durable=False)
    assert contents(folder) == {"third"}
    assert [entry.name for entry in folder.parent.iterdir()] == ["weights"]


@pytest.mark.parametrize("refused_at", [1, 2])
def test_a_refused_rename_leaves_the_older_folder_its_name(folder, monkeypatch, refused_at):
    def refuse(number: int) -> None:
        if number == refused_at:
            raise PermissionError(13, "Permission denied")

    write(folder, "second")
    with monkeypatch.context() as patch, pytest.raises(PermissionError):
        counted(patch, refuse)
        finish(folder, durable=False)
    give_up(folder)
    assert contents(folder) == {"first"}
    assert [entry.name for entry in folder.parent.iterdir()] == ["weights"]


def test_an_older_folder_that_cannot_be_removed_is_removed_by_the_next_export(
    folder, monkeypatch, caplog
):
    def refuse(place: Path) -> None:
        raise OSError(39, "Directory not empty", str(place))

    write(folder, "second")
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(shutil, "rmtree", refuse)
        finish(folder, durable=False)
    assert "weights.replaced cannot be removed and stays for now" in caplog.text
    assert contents(folder) == {"second"}
    write(folder, "third")
    finish(folder, durable=False)
    assert [entry.name for entry in folder.parent.iterdir()] == ["weights"]


def test_what_a_person_has_put_aside_stays(folder):
    for name in ("weights.old", "weights.bak", "weights-2"):
        shutil.copytree(folder, folder.with_name(name))
    write(folder, "second")
    finish(folder, durable=False)
    assert contents(folder.with_name("weights.old")) == {"first"}
    assert len(list(folder.parent.iterdir())) == 4


@pytest.mark.parametrize("durable", [True, False])
def test_names_are_on_the_disk_before_and_after_the_folder_gets_its_own(
    folder, monkeypatch, durable
):
    done: list[tuple[str, str]] = []
    rename = Path.rename
    monkeypatch.setattr(folder_swap, "sync", lambda place: done.append(("sync", place.name)))

    def noted(self: Path, target: Path) -> Path:
        done.append(("rename", target.name))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", noted)
    write(folder, "second")
    finish(folder, durable=durable)
    renames = [("rename", "weights.replaced"), ("rename", "weights")]
    if durable:
        assert done == [("sync", "weights.partial"), *renames, ("sync", folder.parent.name)]
    else:
        assert done == renames
