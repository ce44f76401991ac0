"""Checks before a start that look at what the run has made already."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from pydantic import BaseModel

from engine.checkpoint.folders import CheckpointFolders
from engine.errors import RunError
from engine.monitoring.metrics_file import METRICS_FILE, read_metrics
from engine.preflight.finding import Finding
from engine.preflight.preflight import CHECKS, Check
from engine.preflight.sections import Sections
from engine.run.result import is_complete, read_result, too_few_steps


def checks(recipe: str, model: type[BaseModel]) -> tuple[Check, ...]:
    """Return every check of the inputs of a recipe, and of the folder of its run.

    Args:
        recipe: the recipe's module name, e.g. ``recipes.zero``.
        model: its configuration.
    """
    return (*CHECKS, _check_model, _check_metrics, partial(_check_made, recipe, model))


def _check_model(sections: Sections) -> Iterable[Finding]:
    """Refuse to train the model that the run itself will replace."""
    run_dir, folder = sections.get("run_dir", Path), sections.get("model", Path)
    if run_dir is None or folder is None:
        return
    if folder.resolve().is_relative_to(run_dir.resolve()):
        says = f"expected a model outside of run_dir, which the run replaces, found {folder}"
        yield Finding(("model",), says)


def _check_metrics(sections: Sections) -> Iterable[Finding]:
    """Refuse lines of metrics that cannot be gone on with."""
    if (run_dir := sections.get("run_dir", Path)) is None:
        return
    try:
        read_metrics(run_dir / METRICS_FILE)
    except RunError as error:
        yield Finding(("run_dir",), str(error))


def _check_made(recipe: str, model: type[BaseModel], sections: Sections) -> Iterable[Finding]:
    """Refuse fewer steps than were made, and the folder of a finished run that cannot go on.

    A recipe without the key ``steps`` learns from its data how many there are; ``Run.steps``
    refuses it then.
    """
    run_dir, steps = sections.get("run_dir", Path), sections.get("steps", int)
    if run_dir is None:
        return
    checkpoints = CheckpointFolders(run_dir / "checkpoints", keep=1)
    made = checkpoints.latest()
    if made is not None and (says := checkpoints.misnamed(made)):
        yield Finding(("run_dir",), says)
    elif made is not None and steps is not None and made > steps:
        yield Finding(("steps",), too_few_steps(run_dir, made, steps))
    elif sections.values.keys() == model.model_fields.keys():
        try:
            if not is_complete(recipe, model.model_construct(**sections.values)):
                yield from _check_way_on(run_dir, made)
        except RunError as error:
            yield Finding(("run_dir",), str(error).removeprefix("run_dir: "))


def _check_way_on(run_dir: Path, made: int | None) -> Iterable[Finding]:
    """Refuse to make anew what was finished: its steps, report and model would be replaced.

    Without a checkpoint a run can go on from all of its stored rollouts, too.
    """
    if made is not None or (run_dir / "rollouts" / "000000" / "done.json").is_file():
        return
    if (result := read_result(run_dir)) is not None:
        yield Finding(
            ("run_dir",),
            f"expected a checkpoint to go on from in {run_dir / 'checkpoints'}, since the run has "
            f"made {result.steps} steps, found none; restore it, or choose another run_dir",
        )
