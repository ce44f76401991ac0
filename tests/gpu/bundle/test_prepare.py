"""prepare.sh without a network: its refusals, which Python it takes, and what it packs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("prepare.sh")
SHIM = "#!/bin/sh\necho 'python3.12: command not found' >&2\nexit 127\n"
PYTHON = """#!/bin/sh
# A Python that serves: it makes "environments" of itself and tells what it is asked.
echo "$*" >> "$R1_TOLD"
if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi
"""
PYENV = """#!/bin/sh
case "$1 $PYENV_VERSION" in
    versions*) printf '3.11.9\\n3.12.4\\n' ;;
    "which 3.12.4") echo "$R1_HIDDEN" ;;
    *) exit 1 ;;
esac
"""


def program(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    return file


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A PATH without any Python that serves."""
    folder = tmp_path / "bin"
    program(folder / "python3.12", SHIM)
    for name in ("python3", "python"):
        program(folder / name, "#!/bin/sh\nexit 1\n")
    tools = "bash cat cp cut dirname grep mkdir nproc realpath rm sed sha256sum sh uname"
    for tool in tools.split():
        (folder / tool).symlink_to(shutil.which(tool) or "/usr/bin/false")
    return folder


def prepare(*arguments: object, path: Path | None = None, **variables: object):
    given = {"PATH": str(path or os.environ["PATH"])}
    return subprocess.run(
        ["/bin/bash", SCRIPT, *map(str, arguments)],
        env={**given, **{name: str(value) for name, value in variables.items()}},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_is_given_without_making_anything(tmp_path: Path) -> None:
    shown = prepare("--help", tmp_path / "made")
    assert shown.returncode == 0
    for word in ("twin", "sglang", "R1_PYTHON", "R1_COMPILERS"):
        assert f" {word} " in shown.stdout
    assert not (tmp_path / "made").exists()


def test_an_unknown_step_is_refused_with_the_usage(tmp_path: Path) -> None:
    refused = prepare(tmp_path / "made", "twins")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: there is no step twins\n")
    assert "usage: bash tests/gpu/bundle/prepare.sh" in refused.stderr
    assert prepare(tmp_path / "one", tmp_path / "another").returncode == 2
    assert not list(tmp_path.iterdir())


def test_without_a_twin_its_step_is_asked_for(tmp_path: Path) -> None:
    refused = prepare(tmp_path / "made", "te")
    assert refused.returncode == 1 and "name step twin as well" in refused.stderr


def test_a_name_on_path_that_does_not_run_is_no_python(tmp_path: Path, programs: Path) -> None:
    refused = prepare(tmp_path / "made", "twin", path=programs)
    assert refused.returncode == 1
    assert "error: no Python 3.12 with pip and headers is found: name one in R1_PYTHON" in (
        refused.stderr
    )
    assert "command not found" not in refused.stderr
    wrong = prepare(tmp_path / "made", "twin", path=programs, R1_PYTHON=programs / "python3")
    assert wrong.returncode == 1 and f"R1_PYTHON: {programs}/python3 is no" in wrong.stderr


@pytest.mark.parametrize("found_by", ["R1_PYTHON", "PATH", "pyenv"])
def test_the_twin_is_made_with_the_python_that_serves(
    tmp_path: Path, programs: Path, found_by: str
) -> None:
    told, hidden = tmp_path / "told", program(tmp_path / "hidden" / "python3.12", PYTHON)
    variables = {"R1_TOLD": told, "R1_HIDDEN": hidden}
    if found_by == "R1_PYTHON":
        variables["R1_PYTHON"] = hidden
    elif found_by == "PATH":
        program(programs / "python3", PYTHON)
    else:
        program(programs / "pyenv", PYENV)
    made = prepare(tmp_path / "made", "twin", path=programs, **variables)
    assert made.returncode == 0, made.stderr
    assert "-m venv twin" in told.read_text()
    assert f"install -r {SCRIPT.parent}/lists/twin.txt" in told.read_text()
    # what is done already is not done again
    told.write_text("")
    assert prepare(tmp_path / "made", "twin", path=programs, **variables).returncode == 0
    assert "install" not in told.read_text()


@pytest.mark.skipif(not shutil.which("xz"), reason="no xz")
def test_what_is_packed_is_unpacked_on_the_machine(tmp_path: Path) -> None:
    made = tmp_path / ".gpu-bundle"
    program(made / "twin" / "bin" / "python", PYTHON)
    (made / "site-toy" / "toy").mkdir(parents=True)
    (made / "site-toy" / "toy" / "__init__.py").write_text("NAME = 'toy'\n")
    (made / "te-torch" / "csrc").mkdir(parents=True)
    (made / "te-torch" / "csrc" / "one.cpp").write_text("int one;\n")
    packed = prepare(made, "pack")
    assert packed.returncode == 0, packed.stderr
    assert sorted(load.name for load in (made / "loads").iterdir()) == ["te-source", "toy"]
    room = tmp_path / "room"
    done = subprocess.run(
        ["bash", made / "loads" / "toy" / "on_machine.sh"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "R1_ROOM": str(room), "OUT": str(tmp_path / "out")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (room / "site" / "toy" / "__init__.py").read_text() == "NAME = 'toy'\n"
    assert (room / "te-torch" / "csrc" / "one.cpp").exists()
