"""Write report.html: a run's results, curves and samples on one self-contained page."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from engine.monitoring import metric_names as names
from engine.monitoring.charts import draw_charts
from engine.monitoring.console import duration
from engine.monitoring.sample_view import SampleView
from engine.monitoring.summary import EvaluationResult, compare, seconds_by_phase
from engine.platform.files import replace_text

TEMPLATE = "report.html.jinja"
_SCRIPTS = {"CJK": "Chinese characters"}  # where Unicode's names of letters begin otherwise
_IN_ALL_FONTS = {"LATIN", "FEMININE", "MASCULINE"}


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
    pairs = _pairs(report.first_samples, report.last_samples)
    return pages.get_template(TEMPLATE).render(
        report=report,
        charts=draw_charts(report.lines),
        changes=_changes(report.base, report.final),
        comparison=_comparison(report.base, report.final),
        scripts=_scripts(sample for pair in pairs for sample in pair),
        pairs=pairs,
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
    """Return rows (what, base, final, change), with the standard errors where there are any."""
    if base is None or final is None:
        return []
    rows = []
    for line in compare(base, final):
        what = f"{names.heading(line.name)}, {line.what}" if line.name else line.what.capitalize()
        shown = [line.base, line.final]
        if line.errors:
            shown = [f"{value} ± {e}" for value, e in zip(shown, line.errors, strict=True)]
        rows.append((what, shown[0], shown[1], line.change))
    return rows


def _changes(base: EvaluationResult | None, final: EvaluationResult | None) -> str:
    """Return how every reward changed: ``accuracy went from 12.5 % to 93.8 %, format from ...``."""
    if base is None or final is None:
        return ""
    changes = [
        f"{name} went from {first.shown} to {final.rewards[name].shown}"
        for name, first in base.rewards.items()
        if name in final.rewards
    ]
    return ", ".join([*changes[:1], *(change.replace(" went", "", 1) for change in changes[1:])])


def _scripts(samples: Iterable[SampleView]) -> list[str]:
    """Return the names of the scripts in these texts for which a machine may have no font.

    Alphabets with capitals (Latin, Greek, Cyrillic, ...) are in the fonts of every machine.
    """
    texts = (f"{sample.prompt}{sample.response}{sample.answer}" for sample in samples)
    letters = {letter for letter in set().union(*texts) if unicodedata.category(letter) == "Lo"}
    scripts = {unicodedata.name(letter, "unnamed").partition(" ")[0] for letter in letters}
    return sorted(_SCRIPTS.get(script, script.capitalize()) for script in scripts - _IN_ALL_FONTS)


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
