"""Derive every rank's coordinates in the layout, its layers and its experts.

Plain arithmetic: no process is started. Ranks count in megatron's order: tp fastest, then cp, dp,
pp for dense layers; etp, ep, copies, pp for experts. A test compares this map with the process
groups that megatron makes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from engine.config.layout import LayoutConfig
from engine.config.model_sizes import ModelSizes
from engine.config.stages import stage_layers

LINES_SHOWN = 64
"""Larger layouts are shown up to here; every further rank follows by the same order."""


@dataclass(frozen=True)
class RankCoordinates:
    """One rank's coordinates in the layout, and its part of the model.

    Attributes:
        tp, pp, cp, dp: its index in each dimension of the dense layers.
        ep, etp: its index in each dimension of the experts.
        layers: layers of its stages, one range for each virtual stage.
        experts: those it holds in each of its mixture-of-experts layers.
    """

    rank: int
    tp: int
    pp: int
    cp: int
    ep: int
    etp: int
    dp: int
    layers: tuple[range, ...]
    experts: range


def rank_coordinates(layout: LayoutConfig, model: ModelSizes) -> Iterator[RankCoordinates]:
    """Yield the coordinates of every rank, in the order of ranks.

    Raises:
        ValueError: the model's layers do not fill the stages.
    """
    stages = stage_layers(
        model.layers, layout.stages, layout.first_stage_layers, layout.last_stage_layers
    )
    experts = model.experts // layout.ep
    for rank in range(layout.processes):
        pp, within = divmod(rank, layout.processes // layout.pp)
        dp, within_copy = divmod(within, layout.tp * layout.cp)
        cp, tp = divmod(within_copy, layout.tp)
        ep, etp = divmod(within % (layout.ep * layout.etp), layout.etp)
        yield RankCoordinates(
            *(rank, tp, pp, cp, ep, etp, dp),
            layers=tuple(stages[pp :: layout.pp]),
            experts=range(ep * experts, (ep + 1) * experts),
        )


def rank_map(layout: LayoutConfig, model: ModelSizes) -> str:
    """Return the map as a table, a line a rank: ``rank, tp pp cp ep etp dp, layers, experts``."""
    header = "rank  tp  pp  cp  ep etp  dp  layers"
    lines = [header + ("        experts" if model.experts else "")]
    for coordinates in rank_coordinates(layout, model):
        if coordinates.rank == LINES_SHOWN:
            lines.append(f" ...  and {layout.processes - LINES_SHOWN} more in the same order")
            break
        dimensions = (getattr(coordinates, key) for key in ("tp", "pp", "cp", "ep", "etp", "dp"))
        cells = "".join(f"{number:4d}" for number in dimensions)
        layers = " ".join(_span(stage) for stage in coordinates.layers)
        experts = _span(coordinates.experts) if model.experts else ""
        lines.append(f"{coordinates.rank:4d}{cells}  {layers:<14}{experts}".rstrip())
    return "\n".join(lines)


def _span(numbers: range) -> str:
    if len(numbers) == 0:
        return "-"
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"
