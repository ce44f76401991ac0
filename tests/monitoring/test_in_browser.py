"""What a person sees: TensorBoard and the report, opened in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import chromium, needs_chromium, scalar_cards, tensorboard
from example_run import STEPS, example_lines, example_report, example_samples

from engine.monitoring.recorder import Recorder
from engine.monitoring.report import write_report

pytestmark = [pytest.mark.slow, needs_chromium]

CURVES = [
    "evaluation/accuracy",
    "reward/accuracy",
    "reward/format",
    "evaluation/language",
    "rollout/response_length",
    "training/kl",
    "training/entropy",
    "training/gradient_norm",
    "parity/max_logprob_difference",
    "experts/imbalance/1",
    "speed/tokens_per_second",
    "seconds/rollout",
]


def test_tensorboard_shows_the_curves(tmp_path: Path, artefacts: Path) -> None:
    lines = example_lines()
    with Recorder(tmp_path, first_step=0) as recorder:
        for line in lines:
            samples = example_samples(final=True) if line["step"] == STEPS else ()
            scalars = {name: value for name, value in line.items() if name != "step"}
            recorder.record(line["step"], scalars, samples=samples)
    with tensorboard(tmp_path, tmp_path / "tensorboard.log") as address, chromium() as browser:
        page = browser.new_page(viewport={"width": 1500, "height": 1500})
        for number, tags in enumerate((CURVES[:6], CURVES[6:])):
            cards = scalar_cards(page, address, tags)
            page.screenshot(path=artefacts / f"tensorboard-curves-{number}.png")
            assert sorted(card.tag for card in cards) == sorted(tags)
            for card in cards:
                last = [line for line in lines if card.tag in line][-1]
                assert card.step == last["step"], card
                assert card.value == pytest.approx(last[card.tag], rel=1e-3, abs=1e-4), card
                assert card.ink > 100, card
        page.goto("about:blank")
        page.goto(f"{address}#text")
        page.get_by_text("start 3 ; a plus 4 is 7 ;").first.wait_for(timeout=60_000)
        page.screenshot(path=artefacts / "tensorboard-samples.png")


def test_the_report_reads_well_in_light_dark_and_on_a_phone(
    tmp_path: Path, artefacts: Path
) -> None:
    path = tmp_path / "report.html"
    write_report(path, example_report())
    with chromium() as browser:
        for name, width, scheme in (
            ("light", 1280, "light"),
            ("dark", 1280, "dark"),
            ("phone", 390, "light"),
        ):
            page = browser.new_page(
                viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
            )
            complaints: list[str] = []
            page.on("console", lambda message, seen=complaints: seen.append(message.text))
            page.on("requestfailed", lambda request, seen=complaints: seen.append(request.url))
            page.goto(path.as_uri())
            page.screenshot(path=artefacts / f"report-{name}.png", full_page=True)
            assert complaints == []
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert page.locator("figure svg").count() == 13
            assert luminance(page, "background-color") > 200 if scheme == "light" else True
            assert abs(luminance(page, "background-color") - luminance(page, "color")) > 150


def luminance(page, style: str) -> float:
    colour = page.evaluate(f"getComputedStyle(document.body)['{style}']")
    red, green, blue = (int(part) for part in colour.removeprefix("rgb(")[:-1].split(","))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
