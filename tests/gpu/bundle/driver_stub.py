"""Make a libcuda.so.1 without a device, so that CUDA libraries can be loaded without a driver.

    python driver_stub.py FOLDER LIBRARY.so [LIBRARY.so ...]

Every driver function that the libraries name answers CUDA_ERROR_NO_DEVICE. Put FOLDER into
LD_LIBRARY_PATH, for checks on a machine without a GPU only.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

NO_DEVICE = 100
ALWAYS = {"cuInit", "cuDriverGetVersion", "cuGetErrorString", "cuGetErrorName"}
"""Looked up by name at run time."""


def driver_functions(library: Path) -> set[str]:
    """Names of the driver's functions that the loader has to find for ``library``."""
    table = subprocess.run(
        ["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True
    )
    return set(re.findall(r"\bU (cu[A-Z]\w*)$", table.stdout, re.MULTILINE))


def make(folder: Path, functions: set[str]) -> Path:
    """Compile ``folder``/libcuda.so.1; needs gcc."""
    folder.mkdir(parents=True, exist_ok=True)
    source, target = folder / "libcuda.c", folder / "libcuda.so.1"
    source.write_text(
        "".join(f"int {name}(void) {{ return {NO_DEVICE}; }}\n" for name in sorted(functions))
    )
    flags = ["-shared", "-fPIC", "-w", f"-Wl,-soname,{target.name}"]
    subprocess.run(["gcc", *flags, "-o", target, source], check=True)
    return target


def main() -> None:
    """Make the stub for the libraries of the command line."""
    folder, *libraries = map(Path, sys.argv[1:])
    wanted = ALWAYS.union(*map(driver_functions, libraries))
    print(f"{make(folder, wanted).name}: {len(wanted)} functions")


if __name__ == "__main__":
    main()
