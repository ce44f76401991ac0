"""environment.json names what is there and says so where something is not."""

from __future__ import annotations

import json
import os
import subprocess
from importlib import metadata
from pathlib import Path

from engine.monitoring.environment import describe_environment, source_commit


def test_versions_and_layout_are_those_in_use() -> None:
    content = describe_environment(
        device="cpu", kernels={"attention": "torch sdpa"}, layout={"tp": 1, "ep": 2}
    )
    assert content["packages"]["torch"] == metadata.version("torch")
    assert content["packages"]["megatron-core"] == metadata.version("megatron-core")
    assert content["cpu_count"] == os.cpu_count()
    assert content["layout"] == {"tp": 1, "ep": 2}
    assert content["kernels"] == {"attention": "torch sdpa"}
    assert json.loads(json.dumps(content)) == content


def test_an_absent_package_is_null(monkeypatch) -> None:
    monkeypatch.setattr("engine.monitoring.environment.PACKAGES", ("no-such-package-at-all",))
    content = describe_environment(device="cpu", kernels={}, layout={})
    assert content["packages"] == {"no-such-package-at-all": None}


def test_the_commit_is_that_of_the_source_and_says_where_files_differ(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert source_commit(tmp_path) is None
    git("init", "-q")
    assert source_commit(tmp_path) is None
    (tmp_path / "code.py").write_text("1")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    commit = git("rev-parse", "HEAD")
    assert source_commit(tmp_path) == commit
    (tmp_path / "code.py").write_text("2")
    assert source_commit(tmp_path) == commit + "+changes"
    installed = tmp_path / "site-packages"
    installed.mkdir()
    (installed / "code.py").write_text("not part of the repository")
    assert source_commit(installed) is None
