"""on_machine.sh with small loads: what it unpacks, what it refuses, what it hands to run.sh."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("on_machine.sh")
RUN = '#!/bin/sh\necho "run.sh $* in $R1_VENV, $R1_LIMIT s, $R1_ARCHIVE"\nexit 1\n'


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder with a copy of the repository, as far as it matters."""
    (tmp_path / "tests" / "gpu").mkdir(parents=True)
    (tmp_path / "tests" / "gpu" / "run.sh").write_text(RUN)
    return tmp_path


def archive(name: str) -> bytes:
    """A module that says its own name."""
    content = f"NAME = {name!r}\n".encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as file:
        entry = tarfile.TarInfo(f"site/{name}.py")
        entry.size = len(content)
        file.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def make_loads(machine: Path, name: str, parts: int = 1) -> list[Path]:
    """Loads as prepare.sh packs them."""
    whole, loads = archive(name), []
    size = -(-len(whole) // parts)
    names = [f"{name}.tar.xz" + (f".{part:02}" if parts > 1 else "") for part in range(parts)]
    pieces = [whole[part * size :][:size] for part in range(parts)]
    digests = [
        f"{hashlib.sha256(piece).hexdigest()}  {file}\n"
        for file, piece in zip(names, pieces, strict=True)
    ]
    for file, piece in zip(names, pieces, strict=True):
        load = machine / ".gpu-bundle" / "loads" / file.replace(".tar.xz", "")
        load.mkdir(parents=True)
        (load / file).write_bytes(piece)
        (load / f"{name}.sha256").write_text("".join(digests))
        shutil.copy(SCRIPT, load)
        loads.append(load)
    return loads


def call(machine: Path, load: Path, *steps: str, **given: str) -> subprocess.CompletedProcess:
    variables = {"OUT": "out", "R1_BASE": sys.executable, "R1_LIMIT": "60"}
    variables |= {"R1_ROOM": str(machine / "room"), **given}
    return subprocess.run(
        ["bash", load / "on_machine.sh", *steps],
        cwd=machine,
        env={"PATH": "/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def says(machine: Path, name: str) -> str:
    """What the unpacked module says, by the environment that was made."""
    python = machine / "room" / "venv" / "bin" / "python"
    asked = f"import os, {name}; print({name}.NAME, os.environ['NVTE_FRAMEWORK'])"
    return subprocess.run(
        [python, "-c", asked], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_an_archive_is_unpacked_once_and_python_finds_what_was_in_it(machine: Path) -> None:
    (load,) = make_loads(machine, "whole")
    first = call(machine, load)
    assert first.returncode == 0, first.stderr
    assert "unpacked whole" in first.stdout
    assert says(machine, "whole") == "whole pytorch"
    (machine / "room" / "site" / "whole.py").write_text("NAME = 'changed'\n")
    second = call(machine, load)
    assert second.returncode == 0 and "unpacked" not in second.stdout
    assert says(machine, "whole") == "changed pytorch"


def test_parts_wait_for_each_other_over_two_calls(machine: Path) -> None:
    first, second = make_loads(machine, "large", parts=2)
    elsewhere = machine / "not-carried"
    second.rename(elsewhere)
    waiting = call(machine, first)
    assert waiting.returncode == 0
    assert "large waits for large.tar.xz.01" in waiting.stdout
    assert not (machine / "room" / "site" / "large.py").exists()
    shutil.rmtree(first)
    elsewhere.rename(second)
    whole = call(machine, second)
    assert whole.returncode == 0 and "unpacked large" in whole.stdout
    assert says(machine, "large") == "large pytorch"


def test_a_damaged_archive_is_refused(machine: Path) -> None:
    (load,) = make_loads(machine, "damaged")
    file = load / "damaged.tar.xz"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    refused = call(machine, load, "smoke")
    assert refused.returncode == 2
    assert "error: damaged has been damaged" in refused.stderr
    assert "run.sh" not in refused.stdout
    assert not (machine / "room" / "site" / "damaged.py").exists()


def test_steps_get_what_time_is_left_and_decide_the_exit_status(machine: Path) -> None:
    (load,) = make_loads(machine, "whole")
    done = call(machine, load, "smoke", "tests", R1_LIMIT="60")
    assert done.returncode == 1
    said = done.stdout.splitlines()[-1]
    assert said.startswith(f"run.sh {machine}/room/results smoke tests in {machine}/room/venv, ")
    assert said.endswith(f" s, {machine}/out/results.tar.gz")
    seconds = int(said.split(", ")[1].split()[0])
    assert 0 < seconds <= 60


def test_once_all_is_unpacked_no_load_is_needed(machine: Path) -> None:
    (load,) = make_loads(machine, "whole")
    assert call(machine, load).returncode == 0
    shutil.rmtree(machine / ".gpu-bundle")
    later = call(machine, SCRIPT.parent, "smoke")
    assert later.returncode == 1 and later.stdout.startswith("run.sh "), later.stderr


def test_without_loads_nothing_starts(machine: Path) -> None:
    (load,) = make_loads(machine, "whole")
    for file in load.glob("whole*"):
        file.unlink()
    refused = call(machine, load, "smoke")
    assert refused.returncode == 2 and "error: no loads in" in refused.stderr


def test_a_python_that_is_named_and_not_there_is_refused(machine: Path) -> None:
    (load,) = make_loads(machine, "whole")
    refused = call(machine, load, "smoke", R1_BASE=str(machine / "none"))
    assert refused.returncode == 2
    assert f"error: no Python at {machine}/none: name one in R1_BASE" in refused.stderr
    assert not (machine / "room").exists()


def test_what_is_to_be_compiled_must_have_been_carried(machine: Path) -> None:
    (load,) = make_loads(machine, "whole")
    refused = call(machine, load, "rebuild", "smoke")
    assert refused.returncode == 2 and "rebuild needs the load te-source" in refused.stderr
    assert "run.sh" not in refused.stdout


def test_an_extension_that_cannot_be_compiled_says_so(machine: Path) -> None:
    (load,) = make_loads(machine, "whole")
    (machine / "room" / "te-torch" / "csrc").mkdir(parents=True)  # without any source
    refused = call(machine, load, "rebuild", "smoke")
    assert refused.returncode == 2
    assert "Transformer Engine's extension cannot be compiled" in refused.stderr
    assert (machine / "out" / "rebuild.log").exists()
    assert "run.sh" not in refused.stdout


def test_help_names_the_variables(machine: Path) -> None:
    (load,) = make_loads(machine, "whole")
    shown = call(machine, load, "--help")
    assert shown.returncode == 0 and "R1_LIMIT" in shown.stdout
    assert not (machine / "room").exists()
