"""Compute digests of a run's inputs and of its model; trainer ranks share the reading."""

from __future__ import annotations

from pathlib import Path

import torch.distributed as dist
from blake3 import blake3
from pydantic import BaseModel

from engine.checkpoint.manifest import digest
from engine.config.inputs import input_paths
from engine.run.result import MODEL, read_result


def input_digests(config: BaseModel) -> dict[str, str]:
    """Return the BLAKE3 digest of each input file and folder, by configuration key; a collective.

    A model that a run of ours made has its digest in that run's result.json.
    """
    return {key: _known(path) or _digest(path) for key, path in input_paths(config).items()}


def folder_digest(folder: Path) -> str:
    """Return the digest of the names and contents of a folder's files; a collective."""
    return _digest(folder)


def _known(path: Path) -> str | None:
    """Return the digest of a model that a finished run made."""
    made = read_result(path.parent) if path.name == MODEL else None
    return None if made is None else str(made["model"]["blake3"])


def _digest(path: Path) -> str:
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    rank, ranks = dist.get_rank(), dist.get_world_size()
    mine = {file.name: digest(file).blake3 for file in files[rank::ranks]}
    parts: list[dict[str, str]] = [{} for _ in range(ranks)]
    dist.all_gather_object(parts, mine)
    found = {name: value for part in parts for name, value in part.items()}
    if not path.is_dir():
        return found[path.name]
    lines = "".join(f"{found[file.name]}  {file.name}\n" for file in files)
    return blake3(lines.encode()).hexdigest()
