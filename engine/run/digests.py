"""Compute digests of a run's inputs and of its model; trainer ranks share the reading."""

from __future__ import annotations

from pathlib import Path

import torch.distributed as dist
from blake3 import blake3
from pydantic import BaseModel

from engine.checkpoint.manifest import digest
from engine.config.inputs import input_paths


def input_digests(config: BaseModel) -> dict[str, str]:
    """Return the BLAKE3 digest of each input, by configuration key; a collective."""
    return {key: digest_of(path) for key, path in input_paths(config).items()}


def digest_of(path: Path) -> str:
    """Return the BLAKE3 digest of a file, or of the names and contents of a folder's files.

    A collective: trainer ranks share the reading. Of a folder it is the digest of the text that
    ``b3sum *`` prints there.
    """
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
