"""The ``main`` of every recipe: a person's command line, or one process of a run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel

from engine.config.reader.command_line import read
from engine.errors import RunError, clear_errors
from engine.preflight.preflight import Preflight
from engine.run.placement import Placement
from engine.run.roles import Role
from engine.run.run_checks import checks


def main(recipe: str, model: type[BaseModel], roles: Callable[[Any], Sequence[Role]]) -> None:
    """Read the configuration that the command line names; be the process that a launcher placed.

    ``--check``, ``--print`` and ``--help`` answer and exit. A RunError is printed as one sentence.

    Args:
        recipe: the recipe's module name, e.g. ``recipes.zero``.
        model: its configuration.
        roles: what it needs, see :mod:`engine.run.roles`.
    """
    # A store that closes when a run ends is no news; torch would print C++ stack traces.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    with clear_errors():
        config = read(model, recipe, Preflight(_say, checks(recipe, model)))
        if (placement := Placement.from_environment()) is None:
            raise RunError(f"start a run with: python -m launchers.local {recipe} CONFIG")
        role = next(role for role in roles(config) if role.name == placement.role)
        role.program(config, placement)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
