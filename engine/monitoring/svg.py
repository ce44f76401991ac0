"""Draw SVG that takes its colours and fonts from the page around it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Colours that stand for the page's own: the SVG names CSS variables, so one drawing serves a light
# and a dark page. matplotlib wants real colours, hence these, which nothing else uses.
SERIES = tuple(f"#00f0{i:02x}" for i in range(8))
QUIET, INK, RULE = "#00f1aa", "#00f1bb", "#00f1cc"
_VARIABLES = {
    **{colour: f"var(--series-{i})" for i, colour in enumerate(SERIES)},
    QUIET: "var(--quiet)",
    INK: "var(--soft)",
    RULE: "var(--rule)",
}
HALF_WIDTH, FULL_WIDTH = (6.0, 2.9), (12.4, 3.2)  # inches of 72 points


def draw(
    title: str,
    paint: Callable[[Axes], None],
    *,
    legend: bool,
    size: tuple[float, float] = HALF_WIDTH,
) -> str:
    """Return what ``paint`` draws over the steps, as an ``<svg>`` element without fixed size.

    Its colours are the CSS variables ``--series-0`` ... ``--series-7``,
    ``--quiet``, ``--soft`` and ``--rule``.
    """
    style = {
        "svg.fonttype": "none",  # text stays text: the page's font, selectable
        "svg.hashsalt": title,  # the same drawing gives the same file; ids differ between charts
        "font.size": 10,
        "text.color": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        paint(axes)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(RULE)
        axes.tick_params(length=0)
        axes.grid(axis="y", color=RULE, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.set_xlabel("step")
        if legend:
            handles = axes.get_legend_handles_labels()[0]
            figure.legend(
                loc="outside upper left", ncols=len(handles), frameon=False, handlelength=1.4
            )
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _for_page(buffer.getvalue(), title)


def _for_page(svg: str, title: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    head, body = svg.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', head)
    assert view is not None
    # Groups carry ids like axes_1, the same in every drawing; nothing refers to them.
    body = re.sub(r'(<g) id="[^"]*"', r"\1", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    link = 'xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {view[0]} {link} role="img" aria-label="{title}">{body}'
