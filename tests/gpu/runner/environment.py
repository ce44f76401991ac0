"""Write what the steps of run.sh run on, device, packages, kernels, commit: environment.py FILE."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from engine.config.layout import LayoutConfig
from engine.monitoring.environment import describe_environment
from engine.platform import accelerator

accelerator.prepare()

from engine.platform.kernels import kernels  # noqa: E402

found = describe_environment(
    device=accelerator.device_name(),
    kernels=kernels(),
    layout=LayoutConfig(processes=1).model_dump(),
)
Path(sys.argv[1]).write_text(json.dumps(found, indent=1) + "\n")
