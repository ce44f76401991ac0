"""report.html: one page that tells what a run did, and needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from engine.monitoring.charts import draw_charts
from engine.monitoring.console import duration
from engine.monitoring.sample_view import SampleView
from engine.monitoring.summary import EvaluationResult, seconds_by_phase
from engine.platform.files import replace_text

TEMPLATE = "report.html.jinja"


@dataclass(frozen=True)
class Report:
    """Everything the page shows."""

    title: str
    lines: Sequence[Mapping[str, Any]]  # of metrics.jsonl
    summary: Mapping[str, Any]  # of summary.json
    settings: Mapping[str, Any]  # of config.yaml
    environment: Mapping[str, Any]  # of environment.json
    base: EvaluationResult | None = None
    final: EvaluationResult | None = None
    first_samples: Sequence[SampleView] = field(default=())  # answers of the base ...
    last_samples: Sequence[SampleView] = field(default=())  # ... and of the final weights


def write_report(path: Path, report: Report) -> None:
    """Render ``report`` to ``path``, by rename.

    Samples are shown in the order given, paired by prompt: choose them before looking at them.

    Raises:
        RunError: the file cannot be written.
    """
    replace_text(path, render_report(report))


def render_report(report: Report) -> str:
    """Return the page as HTML; text that a model wrote is escaped."""
    pages = Environment(
        loader=PackageLoader("engine.monitoring", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    seconds = seconds_by_phase(report.lines)
    total = sum(seconds.values())
    return pages.get_template(TEMPLATE).render(
        report=report,
        charts=draw_charts(report.lines),
        comparison=_comparison(report.base, report.final),
        pairs=_pairs(report.first_samples, report.last_samples),
        phases=[
            (phase, duration(spent), spent / total) for phase, spent in seconds.items() if spent
        ],
        total_time=duration(total),
        settings=list(_flat(report.settings)),
        environment=list(_flat(report.environment)),
        summary=[(name, _shown(value)) for name, value in report.summary.items()],
    )


def _comparison(
    base: EvaluationResult | None, final: EvaluationResult | None
) -> list[tuple[str, str, str, str]]:
    """Return rows (what, base, final, change)."""
    if base is None or final is None:
        return []
    errors = (base.accuracy_error, final.accuracy_error)
    return [
        _compared("Accuracy, pass@1", base.accuracy, final.accuracy, 3, errors),
        _compared("Answers in the required format", base.format_rate, final.format_rate, 3),
        _compared("Mean response, tokens", base.response_length, final.response_length, 1),
    ]


def _compared(
    what: str,
    base: float,
    final: float,
    digits: int,
    errors: tuple[float, float] | None = None,
) -> tuple[str, str, str, str]:
    # The change is that of the numbers as shown, so that the row adds up.
    change = round(final, digits) - round(base, digits)
    shown = [f"{value:.{digits}f}" for value in (base, final)]
    if errors:
        shown = [f"{x} ± {error:.{digits}f}" for x, error in zip(shown, errors, strict=True)]
    return what, shown[0], shown[1], f"{change:+.{digits}f}"


def _pairs(
    first: Sequence[SampleView], last: Sequence[SampleView]
) -> list[tuple[SampleView, SampleView]]:
    """Pair the two answers to each prompt that both evaluations have, in the first one's order."""
    answers: dict[str, SampleView] = {}
    for sample in last:
        answers.setdefault(sample.prompt_id, sample)
    return [(sample, answers[sample.prompt_id]) for sample in first if sample.prompt_id in answers]


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted name, value as text) for every leaf."""
    for name, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _shown(value)


def _shown(value: Any) -> str:
    if value is None or value == {}:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(part)}" for name, part in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_shown(part) for part in value)
    return str(value)
