"""Write and read result.json: what a finished run made, from which inputs, its figures.

It is written last, so its presence says that the run is finished and RUN_DIR/model is whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from engine.config.inputs import input_paths
from engine.errors import RunError
from engine.platform.files import replace_json

RESULT, MODEL = "result.json", "model"
"""In a run's folder: the file, and the Hugging Face folder of what it made."""

_CHANGES_NOTHING = frozenset({"run_dir", "loading", "checkpoint", "monitoring"})
"""Sections that change nothing of what a run makes."""


def write_result(
    recipe: str,
    config: BaseModel,
    steps: int,
    digests: Mapping[str, str],
    figures: Mapping[str, Any],
) -> None:
    """Write the result of a finished run into its folder.

    Args:
        recipe: module of the recipe.
        steps: training steps that were made.
        digests: of the inputs, by configuration key, and of the model under ``made``.
        figures: of the last evaluation, or whatever the recipe measures itself by.

    Raises:
        RunError: the file cannot be written.
    """
    run_dir: Path = config.run_dir  # type: ignore[attr-defined]
    inputs = {
        key: {"path": str(path), "blake3": digests.get(key)}
        for key, path in input_paths(config).items()
    }
    content = {
        "recipe": recipe,
        "model": {"path": MODEL, "blake3": digests["made"]},
        "steps": steps,
        "inputs": inputs,
        "evaluation": dict(figures),
        "config": config.model_dump(mode="json"),
    }
    replace_json(run_dir / RESULT, content)


def read_result(run_dir: Path) -> dict[str, Any] | None:
    """Return the result of the run in ``run_dir``; None while it is not finished.

    Raises:
        RunError: the file is damaged.
    """
    file = run_dir / RESULT
    try:
        content: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"run_dir: {file} cannot be read: {error}; remove it to go on") from None
    return content


def is_complete(recipe: str, config: Any) -> bool:
    """Return whether the run of ``config`` is finished; a longer one goes on from where it ended.

    Raises:
        RunError: the folder holds the finished run of another recipe or configuration.
    """
    if (found := read_result(config.run_dir)) is None:
        return False
    wanted = config.model_dump(mode="json")
    made = found.get("config", {})
    keys = [k for k in wanted if k not in _CHANGES_NOTHING and wanted[k] != made.get(k)]
    if found.get("recipe") == recipe and keys == ["steps"] and wanted["steps"] > made["steps"]:
        return False
    other = keys if found.get("recipe") == recipe else ["recipe"]
    if other:
        raise RunError(
            f"run_dir: {config.run_dir} holds a finished run with another {', '.join(other)}; "
            "choose another run_dir or remove that one"
        )
    return True
