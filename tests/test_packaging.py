"""The lock files install what pyproject.toml asks for, and the entry points lead somewhere."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(lock: str) -> dict[str, str]:
    lines = (ROOT / "launchers" / lock).read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs), "every line of a lock is NAME==VERSION"
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.mark.parametrize(
    ("wanted", "lock"),
    [
        (PROJECT["dependencies"], "requirements-cpu.txt"),
        (PROJECT["optional-dependencies"]["cpu"], "requirements-cpu.txt"),
        (PROJECT["optional-dependencies"]["test"], "requirements-test.txt"),
    ],
    ids=["dependencies", "cpu", "test"],
)
def test_the_lock_holds_every_direct_dependency(wanted: list[str], lock: str):
    locked = pins(lock)
    for requirement in map(Requirement, wanted):
        version = locked.get(canonicalize_name(requirement.name), "missing")
        assert version in requirement.specifier, f"{requirement} but {lock} has {version}"


def test_no_package_is_locked_twice():
    assert not pins("requirements-cpu.txt").keys() & pins("requirements-test.txt").keys()


def test_cpu_and_gpu_agree_on_what_they_share():
    cpu, gpu = (set(PROJECT["optional-dependencies"][extra]) for extra in ("cpu", "gpu"))
    assert cpu <= gpu


def test_every_entry_point_leads_to_a_function():
    for group in PROJECT["entry-points"].values():
        for target in group.values():
            module, function = target.split(":")
            file = ROOT / Path(*module.split(".")).with_suffix(".py")
            defined = [n.name for n in ast.parse(file.read_text()).body if hasattr(n, "name")]
            assert function in defined
