"""Key type of a run's folder, and which folders a run may take for its own.

A run replaces files in its folder and deletes old ones. So it takes a folder that is new, empty or
a run's already, and none with links in it: what they lead to is not the run's.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ValidationInfo

from engine.config.inputs import inputs_wanted

LOCK = "launcher.lock"
"""The first file that a launcher writes into a run's folder."""

_STEP = re.compile(r"[0-9]{6,}")
_STORED = ("made_by.json", "groups", "samples.parquet", "done.json")
"""What stored rollouts and evaluations hold. A date is a number of six digits or more, too."""
_SHOWN = 4  # entries of a folder that a message names


def reason_against(folder: Path) -> str | None:
    """Return why a run may not use ``folder``, as ``expected ..., found ...``; None if it may.

    Files are looked at, none is changed. A folder is a run's when it holds what only a run writes:
    a launcher's lock, a checkpoint, stored rollouts or evaluations, a result. A copy of a part of a
    run's folder is a run's, too, so that a run can go on from copied checkpoints.
    """
    try:
        held = sorted(entry.name for entry in folder.iterdir())
        if held and not _is_of_a_run(folder):
            return (
                f"expected a new folder, an empty one or a run's, found {folder} with "
                f"{_listed(held)}; choose another folder, since a run replaces and deletes files "
                "in its own"
            )
        if "model" in held and not ({LOCK, "result.json"} & set(held)):
            return (
                f"expected no model/ beside a run's copied checkpoints, found {folder / 'model'}, "
                "which the run would replace; move it elsewhere"
            )
        for link in _links(folder):
            return (
                f"expected no links in a run's folder, found {link} -> "
                f"{link.readlink()}, through which the run could change files elsewhere; remove it "
                "(the run's folder itself may be a link)"
            )
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        return f"expected a folder, found the file {folder}"
    except OSError as error:
        return f"expected a folder that can be read, found {folder}: {error.strerror or error}"
    return None


def _is_of_a_run(folder: Path) -> bool:
    checkpoints = any((each / "run.json").is_file() for each in _steps(folder / "checkpoints"))
    steps = (each for name in ("rollouts", "evaluations") for each in _steps(folder / name))
    stored = any((each / name).exists() for each in steps for name in _STORED)
    return os.path.lexists(folder / LOCK) or checkpoints or stored or _is_result(folder)


def _steps(folder: Path) -> Iterator[Path]:
    """Yield the folders in ``folder`` that a run has named by a step."""
    if folder.is_dir():
        yield from (e for e in folder.iterdir() if _STEP.fullmatch(e.name) and e.is_dir())


def _is_result(folder: Path) -> bool:
    try:
        content = json.loads((folder / "result.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"recipe", "config"} <= content.keys()


def _links(folder: Path) -> Iterator[Path]:
    """Yield the symbolic links below ``folder``; none is followed."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                yield Path(entry.path)
            elif entry.is_dir(follow_symlinks=False):
                yield from _links(Path(entry.path))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _run_folder(path: Path, info: ValidationInfo) -> Path:
    try:
        folder = path.expanduser()
        whole, home = folder.resolve(), Path.home().resolve()
    except (RuntimeError, OSError) as error:  # no such user, links in a circle
        raise ValueError(f"expected a folder, found {path}: {error}") from None
    if not folder.is_absolute() and Path.cwd().is_relative_to(whole):
        above = "the current folder or one above it"
        raise ValueError(f"expected a folder of the run's own, found {str(path)!r}, {above}")
    if home.is_relative_to(whole):
        above = "your home folder or one above it"
        raise ValueError(f"expected a folder of the run's own, found {str(path)!r}, {above}")
    if inputs_wanted(info) and (reason := reason_against(folder)) is not None:
        raise ValueError(reason)
    return folder


RunFolder = Annotated[Path, AfterValidator(_run_folder)]
"""A run's folder; ``~`` is the home folder. One that holds something else is refused."""
