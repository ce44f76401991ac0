"""run.sh's runner: time, files of tests side by side, and what is left after every step."""

from __future__ import annotations

import json
import re
import sys
import tarfile
import time
from collections import deque
from pathlib import Path
from types import ModuleType, SimpleNamespace

import psutil
import pytest

pytestmark = pytest.mark.slow

PREAMBLE = "import pathlib, sys, time; file = pathlib.Path(sys.argv[1]);"


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Its modules; run.sh's interpreter finds them beside its program."""
    monkeypatch.syspath_prepend(Path(__file__).with_name("runner"))
    import results
    import running
    import steps

    return SimpleNamespace(results=results, running=running, steps=steps)


def run(
    runner: SimpleNamespace,
    out: Path,
    programs: dict[str, str],
    seconds: float = 60,
    jobs: int = 1,
    archive: Path | None = None,
) -> dict[str, dict[str, object]]:
    """Run Python programs, which get the file that they leave; return the rows of the summary."""
    steps: ModuleType = runner.steps
    waiting = deque(
        steps.Step(
            name, f"{name}.txt", 60, [sys.executable, "-c", PREAMBLE + text, out / f"{name}.txt"]
        )
        for name, text in programs.items()
    )
    results = runner.results.Results(out, archive)
    runner.running.run(waiting, out, results, time.monotonic() + seconds, jobs)
    return {row["step"]: row for row in json.loads((out / "summary.json").read_text())}


def test_a_step_gets_the_time_that_is_left_and_later_ones_are_noted(
    runner: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that does not end when it is asked to."""
    monkeypatch.setattr(runner.running, "LEAST_SECONDS", 0.5)
    monkeypatch.setattr(runner.running, "GRACE_SECONDS", 0.5)
    stubborn = "import signal; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
    rows = run(runner, tmp_path, {"first": stubborn, "second": "file.touch()"}, seconds=2)
    assert rows["first"]["status"] == "timeout"
    assert re.fullmatch("stopped after [0-2] s", rows["first"]["reason"])
    assert rows["second"]["status"] == "no time left"


def test_files_of_tests_run_side_by_side_and_benchmarks_alone(
    runner: SimpleNamespace, tmp_path: Path
) -> None:
    begin, end = "file.with_suffix('.begun').touch();", "\nfile.touch()"
    meeting = begin + "\nwhile len(list(file.parent.glob('*.begun'))) < 2: time.sleep(0.01)" + end
    alone = "assert len(list(file.parent.glob('test_*.txt'))) == 2" + end
    first, second = runner.steps.TESTS[:2]
    programs = {first: meeting, second: meeting, "loading": alone}
    rows = run(runner, tmp_path, programs, jobs=2)
    assert {row["status"] for row in rows.values()} == {"passed"}, rows


def test_the_archive_holds_the_folder_and_what_did_not_pass_says_why(
    runner: SimpleNamespace, tmp_path: Path
) -> None:
    archive, out = tmp_path / "out" / "all.tar.gz", tmp_path / "out"
    out.mkdir()
    programs = {
        "good": "file.touch()",
        "silent": "",
        "broken": "raise ValueError('no')",
        "shot": "import os; os.kill(os.getpid(), 9)",
        "last": f"import tarfile; assert 'shot.log' in tarfile.open({str(archive)!r}).getnames()",
    }
    rows = run(runner, out, programs, archive=archive)
    found = {name: (row["status"], row["file"], row["reason"]) for name, row in rows.items()}
    assert found == {
        "good": ("passed", "good.txt", None),
        "silent": ("failed", None, "left no silent.txt"),
        "broken": ("failed", None, "ValueError: no"),
        "shot": ("killed", None, "exit status -9"),
        "last": ("failed", None, "left no last.txt"),
    }
    with tarfile.open(archive) as packed:
        expected = {"summary.json", "good.txt", *(f"{name}.log" for name in programs)}
        assert set(packed.getnames()) == expected
        summary = packed.extractfile("summary.json")
        assert summary is not None and json.loads(summary.read()) == list(rows.values())


def test_nothing_of_a_step_outlives_it(runner: SimpleNamespace, tmp_path: Path) -> None:
    text = """
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
file.write_text(str(child.pid))"""
    assert run(runner, tmp_path, {"parent": text})["parent"]["status"] == "passed"
    child = int((tmp_path / "parent.txt").read_text())
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
