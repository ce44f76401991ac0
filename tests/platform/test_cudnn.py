"""Of two installed cuDNNs, Transformer Engine gets torch's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from engine.platform.cudnn import torchs_cudnn

PROGRAM = """
import ctypes, os
from engine.platform.cudnn import prefer_torchs_cudnn
prefer_torchs_cudnn()
print(os.environ["CUDNN_HOME"])
print(ctypes.CDLL("libcudnn_graph.so.9").which())  # by its name alone, as another library needs it
"""


def library(folder: Path, answer: int) -> Path:
    """Parts of a cuDNN that says which one it is."""
    folder.mkdir(parents=True)
    source = folder / "part.c"
    source.write_text(f"int which(void) {{ return {answer}; }}\n")
    for part in ("libcudnn.so.9", "libcudnn_graph.so.9"):
        target = folder / part
        command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{part}", "-o", target, source]
        subprocess.run(command, check=True)
    return folder


def test_every_part_is_torchs_and_not_the_systems(tmp_path: Path) -> None:
    system = library(tmp_path / "system", 2)
    library(tmp_path / "site" / "nvidia" / "cudnn" / "lib", 1)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={
            **os.environ,
            "PYTHONPATH": f"{tmp_path / 'site'}:{Path.cwd()}",
            "LD_LIBRARY_PATH": str(system),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "site" / "nvidia" / "cudnn"), "1"]


def test_a_torch_that_brought_none_is_left_alone() -> None:
    assert torchs_cudnn() is None or (torchs_cudnn() / "lib").is_dir()
