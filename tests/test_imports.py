"""Imports run strictly downwards, and what must start quickly imports nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TIERS = (
    {"tools"},
    {"launchers"},
    {"recipes"},
    {"engine.run"},
    {"engine.training", "engine.rollout", "engine.checkpoint", "engine.preflight"},
    {"engine.weights"},
    {"engine.models", "engine.data", "engine.rewards", "engine.servers"},
    {"engine.parallel", "engine.algorithms", "engine.monitoring"},
    {"engine.platform", "engine.config"},
)
ANYWHERE = {"engine.errors"}
ALONE = {"engine.algorithms", "engine.config"}  # these import nothing of the engine
TIER_OF = {room: tier for tier, rooms in enumerate(TIERS) for room in rooms}
TOPS = {"engine", "recipes", "launchers", "tools"}
SOURCES = sorted(file for top in TOPS for file in (ROOT / top).rglob("*.py"))


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "engine" else parts[0]


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every import in ``file``, wherever it stands in the code."""
    package = module_of(file) if file.name == "__init__.py" else module_of(file).rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def forbidden(importer: str, imported: str) -> str | None:
    """Why room ``importer`` may not import room ``imported``, or None if it may."""
    if imported == importer or imported in ANYWHERE:
        return None
    if importer in ANYWHERE or importer in ALONE:
        return "imports nothing of the engine"
    if TIER_OF[imported] <= TIER_OF[importer]:
        return "imports run strictly downwards"
    return None


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_run_strictly_downwards(file: Path):
    importer = room_of(module_of(file))
    for line, name in imports(file):
        if name.split(".")[0] in TOPS:
            reason = forbidden(importer, room_of(name))
            assert reason is None, f"line {line}: {importer} imports {name}: {reason}"


def test_every_room_has_its_tier():
    rooms = {room_of(module_of(file)) for file in SOURCES} - {"engine"} - ANYWHERE
    assert rooms <= TIER_OF.keys()


def test_the_reader_of_imports_sees_every_form(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    file = tmp_path / "engine" / "data" / "x.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "import engine.rollout.store\n"
        "from engine import training\n"
        "from ..weights import push\n"
        "from . import packing\n"
        "def f():\n    from recipes.zero import main\n"
    )
    assert [name for _, name in imports(file)] == [
        "engine.rollout.store",
        "engine.training",
        "engine.weights.push",
        "engine.data.packing",
        "recipes.zero.main",
    ]


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("engine.config", "engine.platform"),
        ("engine.algorithms", "engine.config"),
        ("engine.rollout", "engine.training"),
        ("engine.data", "engine.rollout"),
        ("recipes", "launchers"),
        ("engine.errors", "engine.config"),
    ],
)
def test_upward_and_sideways_imports_are_forbidden(importer: str, imported: str):
    assert forbidden(importer, imported)
    assert forbidden("launchers", "engine.config") is None


HEAVY = {"torch", "megatron", "numpy", "sglang", "transformers", "pyarrow"}


@pytest.mark.parametrize(
    "modules",
    [
        sorted(module_of(file) for file in (ROOT / "engine" / "config").rglob("*.py")),
        ["recipes.zero"],
        ["recipes.base"],
        ["launchers.local"],
    ],
    ids=["engine.config", "recipes.zero", "recipes.base", "launchers.local"],
)
def test_what_answers_at_once_imports_nothing_heavy(modules: list[str]):
    program = (
        f"import sys\nfor name in {modules!r}: __import__(name)\n"
        f"print(*sorted({HEAVY!r} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
