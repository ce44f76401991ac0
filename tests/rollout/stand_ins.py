"""Real processes for the tests of collection and of the sampler, started and stopped here."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

from launchers.ports import LoopbackPorts

STAND_IN = Path(__file__).with_name("stand_in_server.py")


class StandInServer:
    """A running ``stand_in_server.py``."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = next(LoopbackPorts())
        self.url = f"http://127.0.0.1:{self.port}"
        self.set_version(0)
        self.set_behaviours({})
        self.start()

    def start(self) -> None:
        command = [sys.executable, str(STAND_IN), str(self.port), str(self.folder)]
        self.process = subprocess.Popen(command)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise TimeoutError("the stand-in server did not start")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def set_version(self, version: int) -> None:
        (self.folder / "version").write_text(str(version))

    def set_behaviours(self, behaviours: dict[int, str]) -> None:
        (self.folder / "behaviours.json").write_text(json.dumps(behaviours))

    def asked(self) -> list[int]:
        """The last tokens of the prompts that were asked, since the last call."""
        log = self.folder / "asked.log"
        lines = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return sorted(map(int, lines))
