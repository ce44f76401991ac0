"""Command line and JSON results of all benchmarks."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def command_line(description: str | None, program: str | None = None) -> argparse.ArgumentParser:
    """Return a parser that shows the module's docstring as it stands, and knows ``--json``."""
    parser = argparse.ArgumentParser(
        prog=program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the results here as well")
    return parser


def write(options: argparse.Namespace, **results: Any) -> None:
    """Write the results to the file that ``--json`` names, if it does, with all other options."""
    if options.json is None:
        return
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    report = {"settings": settings, **results}
    options.json.write_text(json.dumps(report, indent=2, default=str) + "\n")
