"""Content of environment.json: versions, device, kernels and layout of a run."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

# What decides a run's numbers or its speed.
PACKAGES = (
    "r1-engine",
    "torch",
    "megatron-core",
    "transformer-engine",
    "apex",
    "sglang",
    "transformers",
    "tokenizers",
    "nvidia-dali-cuda130",
    "math-verify",
    "numpy",
    "pyarrow",
    "pydantic",
    "tensorboard",
)


def describe_environment(
    *, device: str, kernels: Mapping[str, str], layout: Mapping[str, int]
) -> dict[str, Any]:
    """Return the content of environment.json.

    Args:
        device: what the trainer computes on, in words ("cpu", "NVIDIA H100 80GB HBM3").
        kernels: by operation, the implementation in use ("attention": "torch sdpa").
        layout: the parallel sizes ("tp": 1, "ep": 2, ...).
    Returns:
        JSON types only; a package that is not installed and an unknown commit are None.
    """
    return {
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "system": platform.platform(),
        "machine": platform.node(),
        "cpu_count": os.cpu_count(),
        "device": device,
        "kernels": dict(kernels),
        "layout": dict(layout),
        "commit": source_commit(Path(__file__).parent),
    }


def source_commit(folder: Path) -> str | None:
    """Return the git commit that ``folder`` belongs to, with ``+changes`` where files differ.

    None where the repository around it, if any, does not contain it (an installed package), and
    where there is no git.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None or not _git(folder, "ls-files", "--", "."):
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return commit + ("+changes" if changed else "")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
