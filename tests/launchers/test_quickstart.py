"""What quickstart.sh asks of its parts; the parts themselves run in tests/end_to_end."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "launchers" / "quickstart.sh"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository whose set-up and interpreter only write down how they were called."""
    clone = tmp_path / "a clone"
    (clone / "launchers").mkdir(parents=True)
    (clone / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(SCRIPT, clone / "launchers")
    (clone / "launchers" / "setup.sh").write_text('echo "set-up in $PWD"\n')
    python = clone / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\nprintf "<%s>" "$@"\necho\ntest "$3" != "$FAILING"\n')
    python.chmod(0o755)
    return clone


def quickstart(clone: Path, cwd: Path, *arguments: str, **env: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        ["bash", str(clone / "launchers" / "quickstart.sh"), *arguments],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], **env},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.splitlines()


def test_it_works_from_anywhere_with_the_run_folder_of_the_caller(clone: Path, tmp_path: Path):
    status, lines = quickstart(clone, tmp_path, "mine", SEED="2")
    assert status == 0
    assert f"set-up in {clone}" in lines
    base, zero = (line for line in lines if line.startswith("<-m><launchers.local>"))
    made = clone / "runs" / "base-seed2"
    assert "<recipes.base>" in base
    assert f"<seed=2><run_dir={made}>" in base
    assert "<recipes.zero>" in zero
    assert f"<seed=2><run_dir={tmp_path / 'mine'}><model={made}>" in zero
    assert f"<prompts.held_out={made}/prompts/held_out.jsonl>" in zero
    assert f"report:       {tmp_path / 'mine'}/report.html" in lines


def test_keys_go_to_the_run_and_not_to_its_base(clone: Path, tmp_path: Path):
    status, lines = quickstart(clone, tmp_path, "mine", "layout.tp=2", "steps=9")
    base, zero = (line for line in lines if line.startswith("<-m><launchers.local>"))
    assert status == 0 and f"<run_dir={tmp_path / 'mine'}>" in zero
    assert "<layout.tp=2><steps=9>" in zero and "layout" not in base


def test_a_key_that_is_none_is_told_before_the_base_is_made(clone: Path, tmp_path: Path):
    zero = "recipes/configs/quickstart/zero.yaml"  # the check of it is not the launcher's
    status, lines = quickstart(clone, tmp_path, "layout.tq=2", FAILING=zero)
    assert status != 0 and f"set-up in {clone}" in lines
    assert "recipes.base" not in "".join(lines)


@pytest.mark.parametrize("key", ["seed=4", "run_dir=mine", "model=other"])
def test_what_the_base_decides_is_no_key(clone: Path, tmp_path: Path, key: str):
    assert quickstart(clone, tmp_path, key) == (2, [])


def test_a_folder_may_be_called_like_a_key(clone: Path, tmp_path: Path):
    _, lines = quickstart(clone, tmp_path, "runs/lr=1")
    assert f"<run_dir={tmp_path}/runs/lr=1>" in "".join(lines)


@pytest.mark.parametrize(("seed", "folder"), [("1", "quickstart"), ("3", "quickstart-seed3")])
def test_each_seed_has_a_run_folder_of_its_own(clone: Path, tmp_path: Path, seed: str, folder: str):
    _, lines = quickstart(clone, tmp_path, SEED=seed)
    assert f"<run_dir={clone / 'runs' / folder}>" in "".join(lines)


def test_it_uses_the_environment_that_set_up_makes(clone: Path, tmp_path: Path):
    (clone / ".venv").rename(clone / "other")
    status, lines = quickstart(clone, tmp_path, R1_VENV="other")
    assert status == 0
    assert any(str(clone / "other" / "bin" / "tensorboard") in line for line in lines)


def test_a_failing_part_ends_it(clone: Path, tmp_path: Path):
    status, lines = quickstart(clone, tmp_path, FAILING="recipes.base")
    assert status != 0
    assert "recipes.zero" not in "".join(lines)


def test_it_explains_itself_and_refuses_what_it_does_not_know(clone: Path, tmp_path: Path):
    status, lines = quickstart(clone, tmp_path, "--help")
    assert status == 0
    assert "RUN_DIR" in lines[0]
    assert quickstart(clone, tmp_path, "--fast")[0] == 2
    assert quickstart(clone, tmp_path, "one", "two")[0] == 2
