"""Open the checkpoint that a path names: a folder of weights, a checkpoint, or a run."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import yaml

from engine.checkpoint import manifest
from engine.checkpoint.folders import CheckpointFolders
from engine.errors import RunError
from tools.convert import torch_dist
from tools.convert.sources import HuggingFaceSource, MegatronSource, Source

SMALL = 64 << 20
"""Bytes of a file that is read at once: indices and records."""


def open_source(
    path: Path, step: int | None = None, *, workers: int = 1, digests: bool = True
) -> Source:
    """Open a Hugging Face folder, a megatron checkpoint or a training run's folder.

    The source holds every tensor of its family exactly once, in its shape, and no other.

    Args:
        step: which checkpoint of a run; default: the newest.
        workers: threads that read.
        digests: whether all files of a megatron checkpoint are read and compared with its
            manifest; else those of no more than :data:`SMALL` are, and the others' sizes.

    Raises:
        RunError: it is none of them, or damaged.
    """
    checkpoint = _checkpoint(_folder(path), step)
    if checkpoint is None:
        folder = HuggingFaceSource(path)
        folder.check()
        return folder
    source = MegatronSource(checkpoint, companions_of(checkpoint))
    _compare(checkpoint, workers, math.inf if digests else SMALL)
    source.check()
    return source


def _compare(checkpoint: Path, workers: int, largest: float) -> None:
    # Small tasks, so that Ctrl-C waits for no more; each reads the manifest.
    tasks = min(len(list(checkpoint.iterdir())), 32 * workers)
    look = partial(manifest.problem, checkpoint, parts=tasks, largest=largest)
    with ThreadPoolExecutor(workers) as pool:
        for problem in pool.map(look, range(tasks)):
            if problem is not None:
                raise RunError(f"checkpoint {checkpoint} is damaged: {problem}")


def _checkpoint(path: Path, step: int | None) -> Path | None:
    """Return the megatron checkpoint at ``path``, or of the run there; None if there is neither."""
    if (path / torch_dist.INDEX).is_file():
        if step is not None:
            raise RunError(f"--step is for a run's folder; {path} is one checkpoint")
        return path
    root = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    folders = CheckpointFolders(root, keep=1)
    steps = folders.steps()
    if not steps:
        if step is not None or root != path:
            raise RunError(f"{root} has no whole checkpoint")
        return None
    if step is not None and step not in steps:
        raise RunError(
            f"{root} has no checkpoint of step {step}; it has {', '.join(map(str, steps))}"
        )
    return folders.folder(steps[-1] if step is None else step)


def checkpoint_of_run(path: Path, step: int | None = None) -> Path:
    """Return the checkpoint of a training run's folder; see :func:`open_source`.

    Raises:
        RunError: ``path`` is no run's folder, or has no such step.
    """
    checkpoint = _checkpoint(_folder(path), step)
    if checkpoint is None or checkpoint == path.resolve():
        raise RunError(f"{path} is no run's folder; then --to has to name the folder to write")
    return checkpoint


def place_in_run(checkpoint: Path) -> Path:
    """Return where a training run keeps one of its checkpoints as a Hugging Face folder."""
    return checkpoint.parents[1] / "hugging_face" / checkpoint.name


def _folder(path: Path) -> Path:
    if not path.is_dir():
        found = "a file" if path.is_file() else "none"
        raise RunError(f"expected a folder, found {found} at {path}")
    return path.resolve()


def companions_of(checkpoint: Path) -> Path:
    """Return the folder with config.json and tokenizer: the checkpoint's, or its run's model.

    Raises:
        RunError: there is none.
    """
    if (checkpoint / "config.json").is_file():
        return checkpoint
    run = checkpoint.parent.parent
    if (run / "architecture" / "config.json").is_file():  # a run that began with random weights
        return run / "architecture"
    try:
        config = yaml.safe_load((run / "config.yaml").read_text())
        model = Path(config["model"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise RunError(
            f"{checkpoint} has no config.json, and {run / 'config.yaml'} does not name the model "
            f"that it was trained from: {error}"
        ) from None
    if not (model / "config.json").is_file():
        raise RunError(
            f"{run / 'config.yaml'} says that the model comes from {model}, where there is no "
            f"config.json (a relative path is looked for from where you are)"
        )
    return model
