"""Write and read result.json: what a finished run made, from which inputs, its figures.

It is written last, so its presence says that the run is finished and RUN_DIR/model is whole.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from engine.config.inputs import input_paths
from engine.config.leaves import leaves
from engine.errors import RunError
from engine.platform.files import replace_json

RESULT, MODEL = "result.json", "model"
"""In a run's folder: the file, and the Hugging Face folder of what it made."""

_CHANGES_NOTHING = re.compile(
    r"run_dir|(loading|checkpoint|monitoring|servers)\..*|.*_seconds|record_every|validation_every"
)
"""Keys that change nothing of what a run makes: where, how fast, what is shown, waits."""


def write_result(
    recipe: str,
    config: BaseModel,
    steps: int,
    digests: Mapping[str, str],
    figures: Mapping[str, float],
) -> None:
    """Write the result of a finished run into its folder.

    Args:
        recipe: module of the recipe.
        steps: training steps that were made.
        digests: of the inputs, by configuration key, and of the model under ``made``.
        figures: of the last evaluation, or whatever the recipe measures itself by; what is not
            finite becomes null.

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
        "evaluation": {
            name: value if math.isfinite(value) else None for name, value in figures.items()
        },
        "config": config.model_dump(mode="json"),
    }
    replace_json(run_dir / RESULT, content)


class Result(BaseModel):
    """What of result.json is read again; ``config`` is the run's."""

    recipe: str
    config: dict[str, Any]
    steps: int = 0


def read_result(run_dir: Path) -> Result | None:
    """Return the result of the run in ``run_dir``; None while it is not finished.

    Raises:
        RunError: the file is damaged.
    """
    file = run_dir / RESULT
    try:
        return Result.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"run_dir: {file} cannot be read: {error}; remove it to go on") from None


def is_complete(recipe: str, config: Any) -> bool:
    """Return whether the run of ``config`` is finished, and what it made is still there.

    A folder that was copied without ``model/`` gets it again from its last checkpoint. A run that
    asks for more ``steps`` goes on from where it ended, with other settings too, like any run that
    has not ended.

    Raises:
        RunError: the folder holds the finished run of another recipe or configuration.
    """
    if (found := read_result(config.run_dir)) is None:
        return False
    made, wanted = leaves(found.config), leaves(config.model_dump(mode="json"))
    # A key that the older result does not have is of a later version of the recipe.
    keys = [key for key in made if made[key] != wanted.get(key) and not changes_nothing(key)]
    same_recipe = found.recipe == recipe
    if same_recipe and "steps" in keys and wanted["steps"] > made["steps"]:
        return False
    if same_recipe and keys == ["steps"]:
        says = too_few_steps(config.run_dir, made["steps"], wanted["steps"])
        raise RunError(f"steps: {says}")
    if keys or not same_recipe:
        other = ", ".join(keys) if same_recipe else "recipe"
        raise RunError(
            f"run_dir: {config.run_dir} holds a finished run with another {other}; choose another "
            "run_dir or remove that one"
        )
    return (config.run_dir / MODEL / "config.json").is_file()


def too_few_steps(run_dir: Path, made: int, wanted: int) -> str:
    """Return what to say of a run that has made more steps than it is asked for."""
    return (
        f"{wanted} are asked for, but the run in {run_dir} has made {made} already; ask for "
        f"{made} or more, or choose another run_dir"
    )


def forget_result(run_dir: Path) -> None:
    """Remove what says that the run in ``run_dir`` is finished."""
    for name in (RESULT, "summary.json", "report.html"):
        (run_dir / name).unlink(missing_ok=True)


def changes_nothing(key: str) -> bool:
    """Return whether a key of the configuration changes nothing of what a run makes."""
    return _CHANGES_NOTHING.fullmatch(key) is not None
