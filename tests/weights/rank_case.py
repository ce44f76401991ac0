"""The way from a test to the ranks of the pool, which alone may import megatron."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from engine.config.layout import LayoutConfig


def run_case(layout: LayoutConfig, *, what: str, **arguments: Any) -> Any:
    """On a rank of the pool: call the function ``what`` of ``export_cases``."""
    return getattr(import_module("export_cases"), what)(layout, **arguments)
