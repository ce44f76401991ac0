"""The lists pin what is carried, and agree with what the project pins."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LISTS = Path(__file__).parent / "lists"
ROOT = Path(__file__).parents[3]
CARRIED = ("carried", "dali", "sglang")
OLDER = {"sglang"}
"""0.5.17 is the newest made for the machine's torch; the CPU's server is of another release."""


def requirements(file: Path) -> list[Requirement]:
    lines = (line.strip() for line in file.read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def pins(file: Path) -> dict[str, str]:
    """Name -> version of the lines that pin one."""
    found = {}
    for requirement in requirements(file):
        specifiers = list(requirement.specifier)
        if len(specifiers) == 1 and specifiers[0].operator == "==":
            found[canonicalize_name(requirement.name)] = specifiers[0].version
    return found


@pytest.mark.parametrize("name", CARRIED)
def test_what_is_installed_without_dependencies_is_pinned(name: str) -> None:
    named = requirements(LISTS / f"{name}.txt")
    assert len(pins(LISTS / f"{name}.txt")) == len(named) > 0


def test_the_twin_has_the_machines_torch() -> None:
    assert pins(LISTS / "twin.txt")["torch"] == "2.11.0"


def test_nothing_is_carried_twice() -> None:
    carried, dali, sglang = (pins(LISTS / f"{name}.txt").keys() for name in CARRIED)
    assert not carried & dali and not carried & sglang and not dali & sglang


@pytest.mark.parametrize("name", CARRIED)
def test_the_versions_are_the_projects(name: str) -> None:
    lock = pins(ROOT / "launchers" / "requirements-cpu.txt")
    lock |= pins(ROOT / "launchers" / "requirements-test.txt")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["gpu"]]
    direct = {canonicalize_name(r.name): r.specifier for r in map(Requirement, wanted)}
    for package, version in pins(LISTS / f"{name}.txt").items():
        if package in OLDER:
            continue
        assert lock.get(package, version) == version, f"{package}: the lock has another version"
        if package in direct:
            assert version in direct[package], f"{package}: pyproject.toml wants another version"


def test_transformer_engines_packages_are_of_one_release() -> None:
    found = pins(LISTS / "carried.txt")
    assert found["transformer-engine"] == found["transformer-engine-cu13"]
