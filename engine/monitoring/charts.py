"""Charts of a run's curves: the metrics in each, its title and its note."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from engine.monitoring import metric_names as names
from engine.monitoring.summary import seconds_by_phase
from engine.monitoring.svg import FULL_WIDTH, QUIET, SERIES, draw

Line = Mapping[str, Any]  # one of metrics.jsonl
Points = tuple[list[int], list[float]]


@dataclass(frozen=True)
class Chart:
    """A drawing with its caption."""

    title: str
    note: str  # unit, and what to look for
    svg: str
    wide: bool = False


@dataclass(frozen=True)
class Curve:
    """One metric drawn over the steps."""

    label: str
    name: str
    colour: str = SERIES[0]
    markers: bool = False  # few points, far apart


@dataclass(frozen=True)
class Plan:
    """A chart of curves that share an axis."""

    title: str
    note: str
    curves: tuple[Curve, ...]
    from_zero: bool = True
    logarithmic: bool = False


RESPONSE_LENGTH = Plan(
    "Response length",
    "mean tokens",
    (
        Curve("training rollouts", names.RESPONSE_LENGTH, QUIET),
        Curve("held-out problems", names.EVALUATION_RESPONSE_LENGTH, markers=True),
    ),
)
TRAINING = (
    Plan("Loss", "nats", (Curve("loss", names.LOSS),), from_zero=False),
    Plan("KL to the reference", "nats per token, k3 estimate", (Curve("KL", names.KL),)),
    Plan(
        "Groups without signal",
        "share of groups whose rewards are all equal",
        (Curve("share", names.ZERO_VARIANCE_GROUPS),),
    ),
    Plan("Entropy", "nats per token", (Curve("entropy", names.ENTROPY),)),
    Plan("Gradient norm", "before clipping", (Curve("gradient norm", names.GRADIENT_NORM),)),
    Plan(
        "Trainer against sampler",
        "largest difference of a log-probability, nats",
        (Curve("difference", names.MAX_LOGPROB_DIFFERENCE),),
        logarithmic=True,
    ),
    Plan(
        "Model FLOPs utilisation",
        "share of the GPUs' peak",
        (
            Curve("updates", names.MFU_UPDATE),
            Curve("whole step", names.MFU_STEP, QUIET),
        ),
    ),
)


def draw_charts(lines: Sequence[Line]) -> list[Chart]:
    """Draw every chart whose metrics occur in ``lines``, in reading order."""
    rewards = names.reward_names(lines)
    plans = (
        *(_reward_plan(name, lines) for name in rewards),
        RESPONSE_LENGTH,
        _all_rewards_plan(rewards),
        *TRAINING,
    )
    charts = [_draw_curves(plan, lines) for plan in plans]
    charts.append(_draw_imbalance(lines))
    charts.append(_draw_phases(lines))
    return [chart for chart in charts if chart is not None]


def _reward_plan(name: str, lines: Sequence[Line]) -> Plan:
    """Return the chart of one reward; what its curves are is read off its outcomes."""
    outcomes = {
        outcome for line in lines for outcome in names.with_prefix(line, names.outcome(name, ""))
    }
    note = "mean value" if "graded" in outcomes else "share of right answers"
    curves = (
        Curve("training rollouts", names.reward(name), QUIET),
        Curve("held-out problems", names.evaluation(name), markers=True),
    )
    return Plan(names.heading(name), note, curves)


def _all_rewards_plan(rewards: Sequence[str]) -> Plan:
    return Plan(
        "Reward by kind",
        "mean over samples; the weighted sum is what is trained on",
        (
            *(
                Curve(name, names.reward(name), SERIES[place % len(SERIES)])
                for place, name in enumerate(rewards)
            ),
            Curve("weighted sum", names.REWARD_MEAN, QUIET),
        ),
    )


def _points(lines: Sequence[Line], name: str) -> Points:
    found = [(line[names.STEP], line[name]) for line in lines if line.get(name) is not None]
    return [step for step, _ in found], [value for _, value in found]


def _draw_curves(plan: Plan, lines: Sequence[Line]) -> Chart | None:
    drawn = [(curve, _points(lines, curve.name)) for curve in plan.curves]
    drawn = [(curve, points) for curve, points in drawn if points[0]]
    if not drawn:
        return None

    def paint(axes: Axes) -> None:
        for curve, (steps, values) in drawn:
            _plot(axes, steps, values, curve.label, curve.colour, markers=curve.markers)
        if plan.logarithmic and all(value > 0 for _, (_, values) in drawn for value in values):
            axes.set_yscale("log")
        elif plan.from_zero:
            axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))

    legend = len(drawn) > 1
    return Chart(plan.title, plan.note, draw(plan.title, paint, legend=legend))


def _plot(
    axes: Axes,
    steps: Sequence[int],
    values: Sequence[float],
    label: str,
    colour: str,
    *,
    markers: bool = False,
) -> None:
    """Draw a line; a single point, of which a line shows nothing, as a marker."""
    axes.plot(
        steps,
        values,
        color=colour,
        label=label,
        linewidth=1.8,
        marker="o" if markers or len(steps) == 1 else None,
        markersize=4.5,
    )


def _draw_imbalance(lines: Sequence[Line]) -> Chart | None:
    layers = sorted(
        {
            layer
            for line in lines
            for layer in names.with_prefix(line, names.EXPERT_IMBALANCE_PREFIX)
        }
    )
    if not layers:
        return None
    of_layer = [
        dict(zip(*_points(lines, names.EXPERT_IMBALANCE_PREFIX + layer), strict=True))
        for layer in layers
    ]
    steps = sorted(set().union(*of_layer))
    worst = [max(loads[step] for loads in of_layer if step in loads) for step in steps]
    mean = [_mean([loads[step] for loads in of_layer if step in loads]) for step in steps]

    def paint(axes: Axes) -> None:
        _plot(axes, steps, worst, "worst layer", SERIES[0])
        _plot(axes, steps, mean, "mean over layers", QUIET)
        axes.set_ylim(bottom=1.0)

    note = "busiest expert over the mean one; 1 is balanced"
    return Chart("Expert load", note, draw("Expert load", paint, legend=True))


def _draw_phases(lines: Sequence[Line]) -> Chart | None:
    timed = [(line[names.STEP], names.with_prefix(line, names.SECONDS_PREFIX)) for line in lines]
    timed = [(step, seconds) for step, seconds in timed if seconds]
    if not timed:
        return None
    longest_first = [phase for phase, seconds in seconds_by_phase(lines).items() if seconds]
    shown = longest_first[: len(SERIES) - 1]
    rest = longest_first[len(shown) :]
    steps = [step for step, _ in timed]
    heights = [[seconds.get(phase) or 0.0 for _, seconds in timed] for phase in shown]
    labels = list(shown)
    if rest:
        labels.append("all others")
        heights.append([sum(seconds.get(p) or 0.0 for p in rest) for _, seconds in timed])

    def paint(axes: Axes) -> None:
        if len(steps) == 1:  # an area between one step and itself has no width
            _stack_bars(axes, steps[0], [height for (height,) in heights], labels)
            return
        # One path per phase: bars would be one per phase and step, too many for a long run.
        axes.stackplot(steps, heights, labels=labels, colors=SERIES, step="mid", linewidth=0)
        axes.margins(x=0.0)

    title = "Where a step's time went"
    return Chart(title, "seconds", draw(title, paint, legend=True, size=FULL_WIDTH), wide=True)


def _stack_bars(axes: Axes, step: int, heights: Sequence[float], labels: Sequence[str]) -> None:
    """Draw the phases of a single step on top of each other."""
    bottom = 0.0
    for height, label, colour in zip(heights, labels, SERIES, strict=False):
        axes.bar(step, height, width=0.5, bottom=bottom, color=colour, label=label)
        bottom += height
    axes.set_xlim(step - 1, step + 1)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
