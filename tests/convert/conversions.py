"""Conversions: the command line itself, and what it does, in this process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.convert.conversion import Conversion
from tools.convert.cuts import Cuts
from tools.convert.hugging_face_target import HuggingFaceTarget
from tools.convert.megatron_target import MegatronTarget
from tools.convert.opening import open_source
from tools.convert.precision import Precision
from tools.convert.verification import Verified, verify

FILE_BYTES = 100_000  # several files, even of the smallest model


def command(
    *arguments: object, program: Sequence[object] = ("-m", "tools.convert"), **popen: object
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *map(str, program), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        **popen,
    )


def to_megatron(source: Path, to: Path, tp=1, pp=1, ep=1, file_bytes=FILE_BYTES, workers=2) -> Path:
    """Also reshards, where ``source`` is a megatron checkpoint."""
    opened = open_source(source)
    target = MegatronTarget(opened, Cuts(tp, pp, ep), file_bytes)
    Conversion(opened, target, to, workers).run()
    return to


def to_hugging_face(
    source: Path, to: Path, dtype=None, step=None, file_bytes=FILE_BYTES, workers=2
) -> Path:
    opened = open_source(source, step)
    target = HuggingFaceTarget(opened, Precision(dtype), file_bytes)
    Conversion(opened, target, to, workers).run()
    return to


def verified(first: Path, second: Path, progress: Any = lambda size: None) -> Verified:
    return verify(open_source(first), open_source(second), 2, progress)
