"""A checkpoint folder with a plain number is whole, whenever a crash comes; the newest few stay."""

from __future__ import annotations

import shutil
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.checkpoint.folders import CheckpointFolders


def write(folders: CheckpointFolders, step: int, text: str = "x") -> None:
    partial = folders.begin(step)
    for number in range(3):
        (partial / f"data{number}").write_text(text)
    folders.commit(step, partial)
    folders.retain()


def content(folder: Path) -> list[str]:
    return [file.read_text() for file in sorted(folder.iterdir())]


def test_there_is_no_latest_before_the_first(tmp_path):
    assert CheckpointFolders(tmp_path / "none", keep=2).latest() is None


@given(keep=st.integers(1, 4), steps=st.lists(st.integers(0, 30), min_size=1, max_size=8))
def test_the_newest_stay(tmp_path_factory, keep, steps):
    folders = CheckpointFolders(tmp_path_factory.mktemp("run") / "checkpoints", keep)
    expected: list[int] = []
    for step in steps:
        write(folders, step, str(step))
        expected = sorted({*expected, step})[-keep:]
        assert folders.steps() == expected
        assert folders.latest() == expected[-1]
    assert sorted(entry.name for entry in folders.root.iterdir()) == [f"{s:06d}" for s in expected]
    for step in expected:
        assert content(folders.folder(step)) == [str(step)] * 3


def test_the_ones_before_stay_until_the_newest_is_known_to_be_good(tmp_path):
    folders = CheckpointFolders(tmp_path, keep=1)
    write(folders, 4, "good")
    for step in (5, 6):
        partial = folders.begin(step)
        (partial / "data").write_text("not tried")
        folders.commit(step, partial)
    assert folders.steps() == [4, 5, 6]
    folders.remove(6)
    assert folders.latest() == 5
    folders.retain()
    assert folders.steps() == [5]


def test_an_unfinished_one_is_not_seen_and_goes_at_the_next_save(tmp_path):
    folders = CheckpointFolders(tmp_path, keep=2)
    write(folders, 10)
    (folders.begin(20) / "half").write_text("left by a crash")
    assert folders.latest() == 10
    write(folders, 20)
    assert folders.latest() == 20
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["000010", "000020"]


def test_a_writer_of_a_run_before_cannot_reach_into_the_new_folder(tmp_path):
    folders = CheckpointFolders(tmp_path, keep=2)
    old = folders.begin(10)
    assert folders.begin(10) != old
    with pytest.raises(FileNotFoundError):
        (old / "late").write_text("from a machine that was thought dead")


def test_writing_a_step_again_replaces_it(tmp_path):
    folders = CheckpointFolders(tmp_path, keep=2)
    write(folders, 10, "first")
    write(folders, 10, "second")
    assert content(folders.folder(10)) == ["second"] * 3


def test_what_is_quarantined_is_out_of_the_row_but_kept(tmp_path):
    folders = CheckpointFolders(tmp_path, keep=2)
    write(folders, 10, "good")
    write(folders, 20, "bad")
    aside = folders.quarantine(20)
    assert folders.steps() == [10] and content(aside) == ["bad"] * 3
    write(folders, 20, "new")
    write(folders, 30, "new")
    assert folders.steps() == [20, 30] and content(aside) == ["bad"] * 3
    assert content(folders.quarantine(20)) == ["new"] * 3  # one is kept of each step


class Crash(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("step", [20, 30], ids=["the step is written again", "a new step"])
def test_a_crash_between_any_two_changes_leaves_every_numbered_folder_whole(
    tmp_path, monkeypatch, step
):
    rename, unlink = Path.rename, Path.unlink

    for crash_at in count():
        root = tmp_path / str(crash_at)
        folders = CheckpointFolders(root, keep=2)
        write(folders, 10, "old 10")
        write(folders, 20, "old 20")
        done = 0

        def tick(crash_at: int = crash_at) -> None:
            nonlocal done
            if done == crash_at:
                raise Crash
            done += 1

        def crashing_rename(self: Path, target: Path, tick=tick) -> Path:
            tick()
            return rename(self, target)

        def crashing_rmtree(folder: Path, ignore_errors: bool = False, tick=tick) -> None:
            if ignore_errors and not folder.exists():
                return
            for file in sorted(folder.iterdir()):
                tick()
                unlink(file)
            tick()
            folder.rmdir()

        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", crashing_rename)
            patched.setattr(shutil, "rmtree", crashing_rmtree)
            try:
                write(folders, step, f"new {step}")
                finished = True
            except Crash:
                finished = False
        for number in folders.steps():
            assert len(set(content(folders.folder(number)))) == 1
            assert len(content(folders.folder(number))) == 3

        after = CheckpointFolders(root, keep=2)
        after.clean()
        latest = after.latest()
        assert latest in (20, 30)
        assert content(after.folder(latest)) in (["old 20"] * 3, [f"new {step}"] * 3)
        write(after, 40, "next")
        assert {entry.name.isdigit() for entry in root.iterdir()} == {True}
        if finished:
            break
    assert crash_at > 2


def test_what_a_run_has_not_named_is_neither_counted_nor_deleted(tmp_path):
    kept = ["best", "7", "000010.mine", "000020.partial", "\N{ARABIC-INDIC DIGIT SIX}" * 6]
    for name in kept:
        (tmp_path / name).mkdir()
    folders = CheckpointFolders(tmp_path, keep=1)
    for step in (10, 20, 30):
        write(folders, step)
    assert folders.steps() == [30]
    assert {entry.name for entry in tmp_path.iterdir()} == {*kept, "000030"}


def test_a_linked_checkpoint_is_not_deleted(tmp_path):
    other = CheckpointFolders(tmp_path / "other run", keep=1)
    write(other, 10, "theirs")
    root = tmp_path / "run"
    root.mkdir()
    (root / "000010").symlink_to(other.folder(10))
    folders = CheckpointFolders(root, keep=1)
    for step in (20, 30):
        write(folders, step)
    assert folders.steps() == [30] and content(other.folder(10)) == ["theirs"] * 3
