"""``python standing_still.py FILES ARGUMENT...``: the command line of conversions, with a pause.

Once FILES files are finished it stands still, until something ends it.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from tools.convert import __main__ as command_line
from tools.convert import conversion

FILES = int(sys.argv[1])
convert = conversion.Conversion._convert
finished: list[dict[str, Any]] = []


def stand_still(self: conversion.Conversion, *arguments: Any) -> dict[str, Any]:
    while len(finished) >= FILES and not self._stop.is_set():
        time.sleep(0.01)
    finished.append(convert(self, *arguments))
    return finished[-1]


conversion.Conversion._convert = stand_still
command_line.main(sys.argv[2:])
