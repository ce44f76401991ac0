"""driver_stub.py: a CUDA library is loaded without a driver, and finds no device."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import driver_stub
import pytest

pytestmark = pytest.mark.skipif(
    not (shutil.which("gcc") and shutil.which("nm")), reason="no gcc or no nm"
)
LIBRARY = "int cuInit(int); int cuLaunchKernel(int); int ask(void) { return cuLaunchKernel(1); }"


def test_every_function_that_a_library_names_answers_that_there_is_no_device(
    tmp_path: Path,
) -> None:
    source, library = tmp_path / "library.c", tmp_path / "library.so"
    source.write_text(LIBRARY)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    assert driver_stub.driver_functions(library) == {"cuLaunchKernel"}
    program = Path(driver_stub.__file__)
    subprocess.run([sys.executable, program, tmp_path / "stub", library], check=True)
    asked = (
        f"import ctypes, os; print(ctypes.CDLL('libcuda.so.1', os.RTLD_GLOBAL).cuInit(0), "
        f"ctypes.CDLL({str(library)!r}, os.RTLD_NOW).ask())"
    )
    found = subprocess.run(
        [sys.executable, "-c", asked],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path / "stub")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == [str(driver_stub.NO_DEVICE)] * 2 == ["100", "100"]
