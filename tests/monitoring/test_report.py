"""report.html: says the numbers, needs nothing but itself, and keeps model text text."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from example_run import example_lines, example_report

from engine.monitoring.charts import draw_charts
from engine.monitoring.report import Report, render_report, write_report
from engine.monitoring.summary import EvaluationResult, Measure

TITLES = [
    "Accuracy",
    "Format",
    "Language",
    "Response length",
    "Reward by kind",
    "Loss",
    "KL to the reference",
    "Groups without signal",
    "Entropy",
    "Gradient norm",
    "Trainer against sampler",
    "Expert load",
    "Where a step's time went",
]


class Text(HTMLParser):
    """The words of a page, and what it would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: set[str] = set()
        self.loads: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes) -> None:
        self.tags.add(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "action") and not value.startswith("#"):
                self.loads.append(value)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> str:
    path: Path = tmp_path_factory.mktemp("run") / "report.html"
    write_report(path, example_report())
    return path.read_text()


def without_curves() -> Report:
    return replace(example_report(), lines=[])


def test_it_contains_the_values(html: str) -> None:
    page = Text(html)
    for expected in (
        "R1-Zero, quickstart, seed 1",
        "On held-out problems accuracy went from 12.5 % to 93.8 %, format from 45.0 % to 100.0 %, "
        "language from 0.713 to 0.954 in 60 steps, the mean response from 22 to 44 tokens.",
        "Accuracy, share right 0.125 ± 0.021 0.938 ± 0.015 +0.813",
        "Format, share right 0.450 ± 0.031 1.000 ± 0.000 +0.550",
        "Language, mean value 0.713 ± 0.010 0.954 ± 0.010 +0.241",
        "Mean response, tokens 22.2 43.5 +21.3",
        "256 held-out problems, 256 answers",
        "optimizer.betas 0.9, 0.95",
        "packages.torch 2.13.0",
        "packages.apex –",
        "Base: reward 1 accuracy wrong format right language 0 <think> 故 4 ; </think>",
        "Final: reward 3 accuracy right format right language 1 <think> start 3 ; a plus 4 is 7 ;",
    ):
        assert expected in page.text, expected


def test_it_needs_nothing_but_itself(html: str) -> None:
    page = Text(html)
    assert page.loads == []
    assert not page.tags & {"script", "link", "img", "iframe"}
    assert "@import" not in html
    assert set(re.findall(r"url\(([^)]*?)\w*\)", html)) <= {"#"}


def test_every_chart_is_drawn_and_follows_the_pages_colours() -> None:
    charts = draw_charts(example_lines())
    assert [chart.title for chart in charts] == TITLES
    for chart in charts:
        ElementTree.fromstring(chart.svg)
        assert "var(--series-" in chart.svg
        used = set(
            re.findall(r"#[0-9a-f]{6}\b", re.sub(r'(xlink:href="|url\()#\w+', "", chart.svg))
        )
        assert not used, (chart.title, used)


def test_no_id_occurs_twice_in_the_page(html: str) -> None:
    ids = re.findall(r'\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids))


def test_a_curve_goes_through_its_values() -> None:
    """The held-out curve of five markers stands as high as its values do."""
    lines = [{"step": s, "evaluation/accuracy": v} for s, v in ((0, 0.2), (10, 0.6), (20, 1.0))]
    (chart,) = draw_charts(lines)
    heights = [
        float(y)
        for y in re.findall(r'<use [^>]*y="([\d.]+)" style="fill: var\(--series-0', chart.svg)
    ]
    assert len(heights) == 3
    assert heights[0] > heights[1] > heights[2]
    assert abs((heights[0] - heights[1]) - (heights[1] - heights[2])) < 1e-3


def test_a_run_of_other_metrics_has_its_own_charts_only() -> None:
    lines = [{"step": s, "training/loss": 2.0 - s, "seconds/update": 1.0} for s in range(3)]
    assert [c.title for c in draw_charts(lines)] == ["Loss", "Where a step's time went"]
    report = Report("base", lines, summary={}, settings={}, environment={})
    assert "Before and after" not in render_report(report)
    assert draw_charts([]) == []


def test_what_a_model_wrote_stays_text() -> None:
    report = without_curves()
    hostile = "<script>alert(1)</script> & </pre>"
    sample = replace(report.first_samples[0], response=hostile, prompt=hostile, answer=hostile)
    page = render_report(replace(report, first_samples=[sample], title=hostile))
    assert "script" not in Text(page).tags
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt; &amp; &lt;/pre&gt;") >= 4


def test_samples_are_paired_by_prompt() -> None:
    report = without_curves()
    shuffled = [*reversed(report.last_samples)][:3]
    page = Text(render_report(replace(report, last_samples=shuffled))).text
    assert "0 a + 4 b" not in page
    assert page.index("1 a + 4 b") < page.index("2 a + 4 b") < page.index("3 a + 4 b")


def test_a_script_that_a_machine_may_lack_is_named(html: str) -> None:
    assert "written in: Chinese characters. Where empty boxes stand" in Text(html).text
    report = without_curves()
    for response, said in (
        ("so é я λ ½", None),
        ("これ は 答え", "Chinese characters, Hiragana"),
        ("ответ 7 คำตอบ", "Thai"),
        ("", None),
    ):
        sample = replace(report.first_samples[0], response=response)
        page = Text(render_report(replace(report, first_samples=[sample]))).text
        assert ("empty boxes" in page) == (said is not None)
        assert said is None or f"written in: {said}." in page


def test_a_run_whose_rewards_know_no_accuracy_is_told_by_those_it_has() -> None:
    lines = [
        {"step": 0, "reward/my.own": -0.5, "reward/mean": -0.5, "outcome/my.own/graded": 1.0},
        {"step": 1, "evaluation/my.own": 0.25},
    ]
    charts = draw_charts(lines)
    assert [(chart.title, chart.note) for chart in charts[:1]] == [("my.own", "mean value")]
    measures = [{"my.own": Measure(value, 0.1, graded=True)} for value in (-0.5, 0.25)]
    base, final = (EvaluationResult(i, 8, 8, one, 9.0) for i, one in enumerate(measures))
    page = render_report(Report("own", lines, {}, {}, {}, base=base, final=final))
    assert "my.own went from -0.500 to 0.250 in 1 steps" in Text(page).text
    assert "ccuracy" not in page


def test_one_problem_has_no_error_to_show() -> None:
    one = EvaluationResult(0, 1, 4, {"accuracy": Measure(0.25, None)}, 9.0)
    page = Text(render_report(Report("one", [], {}, {}, {}, base=one, final=one))).text
    assert "Accuracy, share right 0.250 0.250 +0.000" in page
    assert "±" not in page


def test_a_run_of_one_step_has_something_to_see_in_every_chart() -> None:
    lines = example_lines()
    charts = draw_charts([lines[7] | lines[15] | {"step": 0}])
    assert [chart.title for chart in charts] == TITLES
    for chart in charts:
        heights, widths = [], []
        for drawn in re.findall(r'<path d="([^"]*)"[^>]*fill: var\(--series-', chart.svg):
            points = [(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", drawn)]
            widths.append(max(x for x, _ in points) - min(x for x, _ in points))
            heights.append(max(y for _, y in points) - min(y for _, y in points))
        markers = re.findall(r'<use [^>]*style="fill: var\(--', chart.svg)
        seen = [w for w, h in zip(widths, heights, strict=True) if w > 1 and h > 1]
        assert markers or seen, chart.title


def test_an_evaluation_without_rewards_is_told_by_its_length() -> None:
    bare = EvaluationResult(0, 8, 8, {}, 9.0)
    page = Text(render_report(Report("bare", [], {}, {}, {}, base=bare, final=bare))).text
    assert "On held-out problems the mean response went from 9 to 9 tokens" in page


def test_the_same_run_gives_the_same_page(html: str) -> None:
    assert render_report(example_report()) == html
