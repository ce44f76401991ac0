"""smoke.py's program and its comparisons, with checks that the tests make."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import smoke
import smoke_checks
import smoke_passes
import torch


def good() -> str:
    return "1e-3"


def wrong() -> str:
    raise AssertionError("off by 2e-1")


def fatal() -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"good": good, "wrong": wrong, "fatal": fatal, "last": good}
    monkeypatch.setattr(smoke, "CHECKS", made)


def test_a_check_that_fails_or_kills_its_process_keeps_no_other_from_running(
    checks: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["smoke.py", "--json", str(tmp_path / "smoke.json")])
    assert smoke.main() == 1
    rows = json.loads((tmp_path / "smoke.json").read_text())
    assert [(row["check"], row["passed"]) for row in rows] == [
        ("good", True),
        ("wrong", False),
        ("fatal", False),
        ("last", True),
    ]
    assert rows[1]["said"].endswith("AssertionError: off by 2e-1")
    assert rows[2]["said"] == "its process ended with -9"
    assert (
        "smoke: 2 of 4 passed\nFAIL  wrong: AssertionError: off by 2e-1\n" in capfd.readouterr()[0]
    )


def test_single_checks_are_chosen_by_name(
    checks: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["smoke.py", "last"])
    assert smoke.main() == 0
    assert capsys.readouterr()[0].startswith("ok    last: 1e-3")
    monkeypatch.setattr(sys, "argv", ["smoke.py", "unknown"])
    with pytest.raises(SystemExit):
        smoke.main()
    assert "no such check: unknown" in capsys.readouterr()[1]


def test_wrong_values_wrong_gradients_and_nan_are_refused() -> None:
    x = torch.randn(8, 8, requires_grad=True)
    assert smoke_checks.same(2 * x, x + x, x) == "0.0e+00, gradients 0.0e+00"
    for found, right in ((2.5 * x, 2 * x), (x * float("nan"), x)):
        with pytest.raises(AssertionError, match="off by"):
            smoke_checks.same(found, right)
    with pytest.raises(AssertionError, match="off by"):
        smoke_checks.same(2 * x, 3 * x - x.detach(), x)


def test_what_must_be_zero_may_be_but_nothing_else() -> None:
    zeros = torch.zeros(4)
    assert smoke_checks.distance(zeros, zeros) == 0
    with pytest.raises(AssertionError):
        smoke_checks.distance(zeros + 1e-6, zeros)


@pytest.mark.parametrize("wrong", ["logp", "gradients"])
def test_a_pass_that_gives_no_finite_number_is_refused(wrong: str) -> None:
    found = {"logp": torch.tensor([-1.0, -2.0]), "gradients": {("weight", None): torch.ones(2)}}
    pool = SimpleNamespace(ranks=1, run=lambda *_, **__: [SimpleNamespace(**found)])
    said = smoke_passes.passes_of(["dense", "moe gqa"], pool, layers="torch")
    assert said == "dense: mean log-probability -1.500; moe gqa: mean log-probability -1.500"
    nan = torch.tensor([1.0, float("nan")])
    found[wrong] = nan if wrong == "logp" else {("weight", None): nan}
    with pytest.raises(AssertionError, match="moe gqa: FAILED\na number is not finite"):
        smoke_passes.passes_of(["dense", "moe gqa"], pool, layers="torch")
