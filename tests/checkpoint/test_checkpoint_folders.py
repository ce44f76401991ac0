"""A checkpoint folder with a plain number is whole; the newest few stay."""

from hypothesis import given
from hypothesis import strategies as st

from engine.checkpoint.folders import CheckpointFolders


def write(folders, step, text="x"):
    (folders.begin(step) / "data").write_text(text)
    folders.commit(step)


def test_there_is_no_latest_before_the_first(tmp_path):
    assert CheckpointFolders(tmp_path / "none", keep=2).latest() is None


@given(keep=st.integers(1, 4), count=st.integers(1, 7))
def test_the_newest_stay(tmp_path_factory, keep, count):
    folders = CheckpointFolders(tmp_path_factory.mktemp("run") / "checkpoints", keep)
    for step in range(1, count + 1):
        write(folders, step * 10)
    assert folders.steps() == [step * 10 for step in range(1, count + 1)][-keep:]
    assert folders.latest() == count * 10


def test_an_unfinished_one_is_not_seen_and_makes_room_for_the_next(tmp_path):
    folders = CheckpointFolders(tmp_path, keep=2)
    write(folders, 10)
    (folders.begin(20) / "half").write_text("left by a crash")
    assert folders.latest() == 10
    write(folders, 20)
    assert folders.latest() == 20
    assert [path.name for path in folders.folder(20).iterdir()] == ["data"]


def test_writing_a_step_again_replaces_it(tmp_path):
    folders = CheckpointFolders(tmp_path, keep=2)
    write(folders, 10, "first")
    write(folders, 10, "second")
    assert (folders.folder(10) / "data").read_text() == "second"
