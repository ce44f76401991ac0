"""The way from a test to the ranks of the pool, which alone may import megatron.

The platform is made ready for megatron in the whole process: not in that of all tests.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from engine.config.layout import LayoutConfig


def live(layout: LayoutConfig, *, what: str, **arguments: Any) -> Any:
    """On a rank of the pool: call ``what``, a function of another module as ``module.name``."""
    module, name = what.split(".")
    return getattr(import_module(module), name)(layout, **arguments)
