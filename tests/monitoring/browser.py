"""Headless Chromium, and TensorBoard as a person sees it."""

from __future__ import annotations

import io
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import numpy
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright

T = TypeVar("T")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium (apt install chromium)")

_FLAGS = (
    "--no-sandbox",  # as root Chromium has none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def tensorboard(logdir: Path, log: Path, limit_seconds: float = 60) -> Iterator[str]:
    """Run ``tensorboard --logdir`` on a free loopback port and yield its address."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir)]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", "0"], stdout=output, stderr=output
        )
    try:
        yield _address(process, log, limit_seconds)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def _address(process: subprocess.Popen, log: Path, limit_seconds: float) -> str:
    end = time.monotonic() + limit_seconds
    while time.monotonic() < end and process.poll() is None:
        if found := re.search(r"http://127\.0\.0\.1:\d+/", log.read_text()):
            return found[0]
        time.sleep(0.2)
    raise AssertionError(f"TensorBoard did not start: {log.read_text()}")


@dataclass(frozen=True)
class Card:
    """A scalar's chart in the Time Series tab."""

    tag: str
    value: float  # of the last point, as the card's table shows it
    step: int
    ink: int  # pixels of the chart in the colour of the curve


def scalar_cards(page: Page, address: str, tags: list[str]) -> list[Card]:
    """Open the Time Series tab with exactly these tags (ten at most, more are not on one page)."""
    pattern = "|".join(f"^{tag}$" for tag in tags)
    page.goto("about:blank")
    page.goto(f"{address}?smoothing=0&tagFilter={quote(pattern)}#timeseries")
    cards = page.locator("scalar-card")
    cards.nth(len(tags) - 1).wait_for(timeout=60_000)
    return [_read(cards.nth(number)) for number in range(cards.count())]


def _read(card: Locator) -> Card:
    card.scroll_into_view_if_needed()
    table = re.compile(r"Run\s+Value\s+Step\s+Relative\s+\S+\s+(\S+)\s+(\S+)")
    row = _eventually(card.page, lambda: table.search(card.inner_text()))
    assert row, f"no values in {card.inner_text()!r}"
    value, step = (float(text.replace(",", "")) for text in row.groups())
    tag = card.locator("tb-truncated-path.tag").get_attribute("title")
    chart = card.locator("line-chart canvas").first
    ink = _eventually(card.page, lambda: _ink(chart))  # a worker draws, after the table is there
    return Card(tag or "", value, int(step), ink or 0)


def _eventually(page: Page, look: Callable[[], T | None], limit_seconds: float = 30) -> T | None:
    end = time.monotonic() + limit_seconds
    while not (found := look()) and time.monotonic() < end:
        page.wait_for_timeout(100)
    return found


def _ink(chart: Locator) -> int:
    """Count pixels that are neither white nor grey: what is left is the curve."""
    picture = numpy.asarray(Image.open(io.BytesIO(chart.screenshot())).convert("RGB")).astype(int)
    return int((picture.max(axis=-1) - picture.min(axis=-1) > 24).sum())
