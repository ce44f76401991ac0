"""What is shown of a log."""

from __future__ import annotations

from pathlib import Path

from launchers.log_tail import header, latest, tail


def test_a_tail_stops_at_the_latest_start(tmp_path: Path):
    log = tmp_path / "a.log"
    log.write_text(f"{header('a', ['x'])}old\nerror: old\n{header('a', ['x'])}new\n")
    assert tail(log) == ["new"]
    assert latest(log) == ["new"]


def test_a_tail_of_a_huge_log_is_its_last_lines(tmp_path: Path):
    log = tmp_path / "a.log"
    log.write_text("".join(f"line {number}\n" for number in range(100_000)))
    assert tail(log, lines=2) == ["line 99998", "line 99999"]
    assert 10_000 < len(latest(log)) < 100_000


def test_a_tail_shows_progress_bars_in_their_last_state(tmp_path: Path):
    log = tmp_path / "a.log"
    log.write_bytes(b"10%\r50%\r100%\n\xff broken utf-8\r\n\n")
    assert tail(log) == ["100%", "\N{REPLACEMENT CHARACTER} broken utf-8"]


def test_a_tail_cuts_endless_lines(tmp_path: Path):
    log = tmp_path / "a.log"
    log.write_text("x" * 10_000)
    assert len(tail(log)[0]) < 600


def test_a_missing_log_has_an_empty_tail(tmp_path: Path):
    assert tail(tmp_path / "none.log") == []
