"""Launchers are tested as their users have them, with the tools of tests/end_to_end."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "end_to_end"))

from launched import launch  # noqa: F401  (a fixture)
