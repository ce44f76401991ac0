"""Of two installed cuDNNs, Transformer Engine gets torch's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from fresh_process import run

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc")
PROGRAM = """
import ctypes, os, sys
from engine.platform.cudnn import prefer_torchs_cudnn
if len(sys.argv) > 1:
    ctypes.CDLL(sys.argv[1])  # as torch does
prefer_torchs_cudnn()
print(os.environ.get("CUDNN_HOME"))
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


def answers(tmp_path: Path, *loaded: Path) -> list[str]:
    """CUDNN_HOME, and which part a process finds that has ``loaded`` a library before."""
    system = library(tmp_path / "system", 2)
    return run(PROGRAM, *loaded, LD_LIBRARY_PATH=str(system)).stdout.split()


def test_every_part_is_torchs_and_not_the_systems(tmp_path: Path) -> None:
    torchs = library(tmp_path / "site packages" / "nvidia" / "cudnn" / "lib", 1)
    home, part = " ".join(answers(tmp_path, torchs / "libcudnn.so.9")).rsplit(maxsplit=1)
    assert (home, part) == (str(torchs), "1")


def test_where_torch_has_loaded_none_nothing_changes(tmp_path: Path) -> None:
    assert answers(tmp_path) == ["None", "2"]
