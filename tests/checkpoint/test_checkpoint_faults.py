"""Saves that fail, checkpoints that are damaged: nothing is lost, and one sentence says what."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpointed_models import MIXTURE
from pool_case import live

from engine.config.layout import LayoutConfig

pytestmark = pytest.mark.slow
TWO = LayoutConfig(processes=2, ep=2)


@pytest.fixture
def on_two(pool):
    def run(what: str, folder: Path, model: dict = MIXTURE, **arguments: Any) -> list[Any]:
        where = {"model": model, "folder": folder}
        return pool.run(live, TWO, what=f"faults.{what}", **where, **arguments)

    return run


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"mounting a small disk is not permitted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def saved(pool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of steps 2 and 5."""
    folder = tmp_path_factory.mktemp("saved")
    pool.run(live, TWO, what="checkpointed_runs.begin", model=MIXTURE, folder=folder)
    return folder


@pytest.mark.parametrize("asynchronous", [True, False])
def test_wherever_the_disk_runs_full_it_is_said_and_the_checkpoint_before_stays(
    on_two, small_disk, asynchronous
):
    answers = on_two("fill_the_disk", small_disk, asynchronous=asynchronous)
    assert answers[0] == answers[1]
    *refused, fitted = answers[0]
    assert fitted is None and len(refused) > 5
    root = small_disk / "checkpoints"
    for sentence in refused:
        assert re.fullmatch(
            f"the checkpoint of step 2 cannot be written to {root}: No space left on device"
            r"(, on rank [01])?; the checkpoints before it are whole",
            sentence,
        ), sentence
    # A writing process was refused, and rank 0 when it wrote the index and the manifest.
    assert {"on rank" in sentence for sentence in refused} == {True, False}


def test_a_killed_writer_is_reported_at_the_next_look_while_training_went_on(on_two, tmp_path):
    killed = "the writing process was killed by SIGKILL, on rank 1"
    said = (
        f"the checkpoint of step 2 cannot be written to {tmp_path}: {killed}; the checkpoints "
        "before it are whole"
    )
    assert on_two("kill_a_writer", tmp_path) == [[said], [said]]


def test_a_writer_that_takes_too_long_is_ended(on_two, tmp_path):
    first, second = on_two("exceed_the_limit", tmp_path)
    assert first == second
    assert "the writing process was not done after 2 s, on rank 0" in first
    assert not list(tmp_path.iterdir())


def test_what_is_written_is_the_state_at_the_moment_of_the_save(on_two, tmp_path):
    for changed, off in on_two("change_while_writing", tmp_path):
        assert changed > 1 and off == 0


def test_a_save_in_flight_is_finished_before_the_next_begins(on_two, tmp_path):
    assert on_two("save_twice", tmp_path) == [[1], [1]]


def test_synchronous_and_asynchronous_saves_write_the_same(on_two, tmp_path):
    assert on_two("save_both_ways", tmp_path) == [[True, False]] * 2
    synchronous, asynchronous = (
        json.loads((tmp_path / name / "000001" / "manifest.json").read_text())
        for name in ("synchronous", "asynchronous")
    )
    assert any(name.endswith(".distcp") for name in synchronous)
    del synchronous[".metadata"], asynchronous[".metadata"]  # they name their folders
    assert synchronous == asynchronous


def flip(file: Path) -> str:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return "is damaged: its digest is not that of what was written"


def truncate(file: Path) -> str:
    size = file.stat().st_size
    os.truncate(file, size - 100)
    return f"has {size - 100:,} bytes, {size:,} were written"


def remove(file: Path) -> str:
    file.unlink()
    return "is missing"


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (flip, "__1_0.distcp"),
        (truncate, "__0_0.distcp"),
        (remove, ".metadata"),
        (remove, "manifest.json"),
        (flip, "run.json"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_loudly(on_two, saved, tmp_path, damage, name):
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    what = damage(folder / "000005" / name)
    (first, none, loud), (second, _, quiet) = on_two("resume", folder)
    assert first == second == 2 and none is None
    assert loud == (
        f"warning: the checkpoint of step 5 is damaged: {folder}/000005/{name} {what}; it now lies "
        f"in {folder}/000005.damaged, and the run goes on from step 2\n"
    )
    assert quiet == ""
    assert on_two("resume", folder)[0] == (2, None, "")


def test_where_every_checkpoint_is_damaged_the_run_does_not_start_from_nothing(
    on_two, saved, tmp_path
):
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    for step in ("000002", "000005"):
        remove(folder / step / "run.json")
    for _ in range(2):  # nor does the second start
        for _, sentence, _ in on_two("resume", folder):
            assert sentence == (
                f"no checkpoint in {folder} is whole: {folder}/000005/run.json is missing; move "
                "the folder away to start from the beginning"
            )


def test_a_damaged_checkpoint_that_is_asked_for_is_refused(on_two, saved, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    remove(folder / "000005" / "__1_0.distcp")
    for _, sentence, _ in on_two("resume", folder, step=5):
        assert sentence == (
            f"checkpoint of step 5 cannot be loaded: {folder}/000005/__1_0.distcp is missing"
        )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"num_hidden_layers": 3}, r"is of another model: it has no decoder\.layers\.2\."),
        ({"num_hidden_layers": 1}, r"is of another model: it has decoder\.layers\.1\."),
        ({"hidden_size": 64}, r"cannot be loaded: .*Global shape mismatch"),
    ],
    ids=["more layers", "fewer layers", "wider"],
)
def test_a_checkpoint_of_another_model_is_refused(on_two, saved, change, expected):
    sentences = {said for _, said, _ in on_two("resume", saved, {**MIXTURE, **change}, step=5)}
    (sentence,) = sentences
    assert re.search(expected, sentence), sentence
    assert "\n" not in sentence
