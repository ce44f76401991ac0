"""Refuse to start a run that has made more steps than it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.checkpoint.folders import CheckpointFolders
from engine.errors import RunError


def check_steps(config: Any) -> None:
    """Refuse a configuration that asks for fewer steps than the newest checkpoint has.

    A recipe without the key ``steps`` learns from its data how many there are; it is refused by
    ``Run.steps``.

    Raises:
        RunError: it asks for fewer.
    """
    made = CheckpointFolders(config.run_dir / "checkpoints", keep=1).latest()
    wanted = getattr(config, "steps", None)
    if made is not None and wanted is not None and made > wanted:
        raise made_more(config.run_dir, made, wanted)


def made_more(run_dir: Path, made: int, wanted: int) -> RunError:
    """Return the error of a run that has made more steps than it is asked for."""
    return RunError(
        f"steps: {wanted} are asked for, but the run in {run_dir} has made {made} already; ask for "
        f"{made} or more, or choose another run_dir"
    )
