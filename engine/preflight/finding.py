"""What a check of a run's inputs finds."""

from __future__ import annotations

from dataclasses import dataclass

from engine.config.reader.keys import KeyPath


@dataclass(frozen=True)
class Finding:
    """One sentence about an input.

    Attributes:
        key: of the configuration, e.g. ``("prompts", "train")``; the message names it and where it
            was written.
        says: what was expected and what was found, with file and line or tensor.
        refuses: whether the run must not start; otherwise it is a warning.
    """

    key: KeyPath
    says: str
    refuses: bool = True


def warning(key: KeyPath, says: str) -> Finding:
    """Return a finding that is said and refuses nothing."""
    return Finding(key, says, refuses=False)
