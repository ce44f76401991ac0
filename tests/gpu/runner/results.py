"""What a call of run.sh leaves: summary.json and, where asked for, an archive of the folder."""

from __future__ import annotations

import io
import json
import tarfile
from contextlib import suppress
from pathlib import Path

from steps import Step


class Results:
    """summary.json and the archive, written after every step: an interrupted call leaves both."""

    def __init__(self, out: Path, archive: Path | None) -> None:
        self._out, self._archive = out, archive
        self._file = out / "summary.json"
        earlier = json.loads(self._file.read_text()) if self._file.exists() else []
        self._rows = {row["step"]: row for row in earlier}
        self.failed = False

    def add(self, asked: Step, status: str, reason: str | None, seconds: float = 0) -> None:
        """Print how a step ended, and write it to the summary and the archive."""
        told = f"{status} after {seconds:.0f} s" if seconds else status
        print(f"== {asked.name}: {told}" + (f" ({reason})" if reason else ""), flush=True)
        self.failed |= status not in ("passed", "skipped")
        row = {"step": asked.name, "status": status, "seconds": round(seconds)}
        self._rows[asked.name] = {**row, "file": asked.file, "reason": reason}
        for row in self._rows.values():  # a step that failed early has left no file
            there = row["file"] is not None and (self._out / row["file"]).exists()
            row["file"] = row["file"] if there else None
        self._file.write_text(json.dumps(list(self._rows.values()), indent=1) + "\n")
        if self._archive is not None:
            self._pack(self._archive)

    def _pack(self, archive: Path) -> None:
        """Write the archive; files may change meanwhile: each is read whole before its header."""
        unfinished = archive.with_name(archive.name + ".part")
        with tarfile.open(unfinished, "w:gz") as packed:
            for file in sorted(self._out.rglob("*")):
                if file.is_file() and file not in (archive, unfinished):
                    with suppress(FileNotFoundError):
                        content = file.read_bytes()
                        entry = tarfile.TarInfo(str(file.relative_to(self._out)))
                        entry.size, entry.mtime = len(content), int(file.stat().st_mtime)
                        packed.addfile(entry, io.BytesIO(content))
        unfinished.replace(archive)
