"""The way from a test to the ranks of the pool, which alone may import megatron."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from engine.config.layout import LayoutConfig


def call(layout: LayoutConfig, *, what: str, **arguments: Any) -> Any:
    """On a rank of the pool: call the function ``what`` of ``rank_programs``."""
    return getattr(import_module("rank_programs"), what)(layout, **arguments)
