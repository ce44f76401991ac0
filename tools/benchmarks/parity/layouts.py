"""The layouts of the parity table, up to 8 processes."""

from __future__ import annotations

from engine.config.layout import LayoutConfig

ONE = LayoutConfig(processes=1)

_SIZES = (
    {"processes": 2},
    {"processes": 2, "tp": 2},
    {"processes": 2, "cp": 2},
    {"processes": 2, "pp": 2},
    {"processes": 2, "pp": 2, "first_stage_layers": 1},
    {"processes": 2, "pp": 2, "vpp": 2},
    {"processes": 4, "pp": 4},
    {"processes": 4, "tp": 2, "pp": 2},
    {"processes": 4, "tp": 2, "cp": 2},
    {"processes": 8, "tp": 2, "pp": 2, "cp": 2},
    {"processes": 8, "pp": 2, "cp": 2, "vpp": 2},
)
_EXPERT_SIZES = (
    {"processes": 2, "ep": 2},
    {"processes": 2, "tp": 2, "ep": 2},
    {"processes": 2, "etp": 2},
    {"processes": 4, "ep": 4},
    {"processes": 4, "cp": 2, "ep": 2},
    {"processes": 4, "tp": 2, "pp": 2, "ep": 2},
    {"processes": 8, "tp": 2, "pp": 2, "cp": 2, "ep": 4},
    {"processes": 8, "tp": 2, "pp": 2, "ep": 2, "etp": 2},
    {"processes": 8, "pp": 2, "vpp": 2, "ep": 4},
)
_DENSE_SIZES = (
    {"processes": 4},
    {"processes": 4, "tp": 4},
    {"processes": 4, "cp": 4},
    {"processes": 8, "tp": 4, "pp": 2, "vpp": 2},
)


def layouts(experts: bool) -> list[LayoutConfig]:
    """Return the layouts that models with or without experts are compared in, smallest first."""
    chosen = [*_SIZES, *(_EXPERT_SIZES if experts else _DENSE_SIZES)]
    found = [LayoutConfig.model_validate(sizes) for sizes in chosen]
    return sorted(found, key=lambda layout: layout.processes)


def name(layout: LayoutConfig) -> str:
    """Return a layout as people write it: ``tp2 pp2 ep2``; what is 1 is left out."""
    sizes = {key: getattr(layout, key) for key in ("tp", "pp", "vpp", "cp", "ep", "etp", "dp")}
    parts = [f"{key}{size}" for key, size in sizes.items() if size > 1]
    if layout.first_stage_layers is not None:
        parts.append(f"first{layout.first_stage_layers}")
    return " ".join(parts) or "one process"
