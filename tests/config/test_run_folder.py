"""A run's folder is new, empty or a run's; what is somebody's is refused, and stays as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ConfigDict

from engine.config.reader.loading import load
from engine.config.run_folder import RunFolder, reason_against
from engine.config.section import Section
from engine.errors import RunError


class Job(Section):
    """A recipe that has a folder and little else."""

    model_config = ConfigDict(extra="forbid")
    run_dir: RunFolder
    steps: int = 1


def write(file: Path, text: str = "mine") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def loaded(tmp_path: Path, run_dir: object, *overrides: str, check: bool = True) -> Path:
    file = tmp_path / "job.yaml"
    file.write_text(f"# a job\nrun_dir: {json.dumps(str(run_dir))}\n")
    return load(Job, file, overrides, look=(lambda _: []) if check else None).run_dir


@pytest.mark.parametrize(
    "entries",
    [
        ["thesis.tex"],
        ["weights/best/model.safetensors", "notes.md"],
        ["config.yaml", "logs/train.log"],
        ["checkpoints/000100/optimizer.pt"],
        ["checkpoints/last/run.json"],
        ["rollouts/monday/done.json"],
        ["rollouts/20261127/arm.mp4", "weights/20261127/best.pt"],
        ["evaluations/1000000/scores.csv"],
        [".hidden"],
    ],
    ids=lambda entries: entries[0],
)
def test_a_folder_that_is_no_run_s_is_refused_and_its_entries_are_named(tmp_path, entries):
    folder = tmp_path / "work"
    for entry in entries:
        write(folder / entry)
    with pytest.raises(RunError, match="run_dir: expected a new folder") as caught:
        loaded(tmp_path, folder)
    for entry in entries:
        assert entry.split("/")[0] in str(caught.value)
    assert "choose another folder" in str(caught.value) and "(line 2)" in str(caught.value)
    assert sorted(p for p in folder.rglob("*") if p.is_file()) == sorted(
        map(folder.joinpath, entries)
    )


def test_many_entries_are_counted(tmp_path):
    for number in range(30):
        write(tmp_path / "photos" / f"{number:02d}.jpg")
    assert "with 00.jpg, 01.jpg, 02.jpg, 03.jpg and 26 more;" in str(
        reason_against(tmp_path / "photos")
    )


@pytest.mark.parametrize(
    "entry",
    [
        "launcher.lock",
        "checkpoints/000012/run.json",
        "checkpoints/1000000/run.json",
        "rollouts/000003/groups/000000.parquet",
        "evaluations/000000/done.json",
    ],
)
def test_a_run_s_folder_and_a_copy_of_a_part_of_it_are_accepted(tmp_path, entry):
    write(tmp_path / "run" / entry)
    write(tmp_path / "run" / "my-notes.txt")  # beside what is a run's, people keep what they like
    assert loaded(tmp_path, tmp_path / "run") == tmp_path / "run"


def test_a_copied_result_is_a_run_s_and_another_result_json_is_not(tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    write(run / "result.json", json.dumps({"recipe": "recipes.zero", "config": {}, "steps": 3}))
    write(run / "model" / "config.json")
    write(other / "result.json", json.dumps([{"accuracy": 0.5}]))
    assert reason_against(run) is None
    assert "no run's" not in str(reason_against(other)) and "result.json" in reason_against(other)


def test_new_and_empty_folders_are_accepted(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new", "new/below"):
        assert loaded(tmp_path, tmp_path / name) == tmp_path / name
    assert not (tmp_path / "new").exists()


def test_a_model_beside_copied_checkpoints_is_not_replaced(tmp_path):
    write(tmp_path / "fork" / "checkpoints" / "000020" / "run.json")
    write(tmp_path / "fork" / "model" / "config.json")
    assert "found " + str(tmp_path / "fork" / "model") in reason_against(tmp_path / "fork")
    write(tmp_path / "fork" / "launcher.lock")
    assert reason_against(tmp_path / "fork") is None


@pytest.mark.parametrize("place", ["weights", "checkpoints/000004", "report.html", "launcher.lock"])
def test_a_link_in_a_run_s_folder_is_refused_with_where_it_leads(tmp_path, place):
    elsewhere, run = tmp_path / "elsewhere", tmp_path / "run"
    write(elsewhere / "diary.txt")
    write(run / "rollouts" / "000000" / "done.json")
    (run / place).parent.mkdir(parents=True, exist_ok=True)
    (run / place).symlink_to(elsewhere)
    with pytest.raises(RunError, match="expected no links") as caught:
        loaded(tmp_path, run)
    assert f"{run / place} -> {elsewhere}" in str(caught.value)


def test_a_link_is_not_followed_to_look_for_more(tmp_path):
    write(tmp_path / "run" / "launcher.lock")
    (tmp_path / "run" / "loop").symlink_to(tmp_path / "run")
    assert f"{tmp_path / 'run' / 'loop'} -> " in reason_against(tmp_path / "run")


def test_the_run_s_folder_itself_may_be_a_link(tmp_path):
    write(tmp_path / "scratch" / "launcher.lock")
    (tmp_path / "runs").symlink_to(tmp_path / "scratch")
    assert loaded(tmp_path, tmp_path / "runs") == tmp_path / "runs"


def test_a_file_and_a_folder_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    write(tmp_path / "file")
    assert reason_against(tmp_path / "file") == f"expected a folder, found the file {tmp_path}/file"

    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert f"found {tmp_path}: Permission denied" in reason_against(tmp_path)


def test_the_home_folder_is_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert loaded(tmp_path, "~/runs/first") == tmp_path / "me" / "runs" / "first"
    with pytest.raises(RunError, match="expected a folder, found ~nobody-of-this-name"):
        loaded(tmp_path, "~nobody-of-this-name/run")


@pytest.mark.parametrize("spelling", ["", ".", "./", "..", "deeper/.."])
@pytest.mark.parametrize("check", [True, False], ids=["checked", "in a process of the run"])
def test_the_current_folder_is_refused(tmp_path, monkeypatch, spelling, check):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(RunError, match="the current folder or one above it"):
        loaded(tmp_path, spelling, check=check)


@pytest.mark.parametrize(
    "spelling",
    [lambda home: "/", lambda home: home, lambda home: "~", lambda home: home.parent],
    ids=["root", "home", "tilde", "above home"],
)
def test_root_and_home_are_refused(tmp_path, monkeypatch, spelling: Callable[[Path], object]):
    monkeypatch.setenv("HOME", str(tmp_path / "people" / "me"))
    with pytest.raises(RunError, match="your home folder or one above it"):
        loaded(tmp_path, spelling(tmp_path / "people" / "me"))


def test_a_run_can_be_started_from_inside_its_own_folder(tmp_path, monkeypatch):
    write(tmp_path / "run" / "launcher.lock")
    monkeypatch.chdir(tmp_path / "run")
    assert loaded(tmp_path, tmp_path / "run") == tmp_path / "run"


def test_it_is_one_of_all_problems_and_only_where_files_are_asked_for(tmp_path):
    write(tmp_path / "work" / "thesis.tex")
    with pytest.raises(RunError, match="2 problems") as caught:
        loaded(tmp_path, tmp_path / "work", "steps=many")
    assert "thesis.tex" in str(caught.value) and "steps" in str(caught.value)
    assert loaded(tmp_path, tmp_path / "work", check=False) == tmp_path / "work"
