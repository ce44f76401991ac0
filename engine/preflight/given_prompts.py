"""The prompt sets of a run as checks see them."""

from __future__ import annotations

from dataclasses import dataclass

from engine.config.reader.keys import KeyPath
from engine.data.prompt_file import PromptFile


@dataclass(frozen=True)
class GivenPrompts:
    """One prompt set.

    Attributes:
        key: of the configuration that names the file.
        file: its prompts, all lines looked at.
        lengths: tokens of each prompt, template included; None where they cannot be known.
    """

    key: KeyPath
    file: PromptFile
    lengths: list[int] | None

    def line(self, index: int) -> str:
        """Return file and line of one prompt."""
        return f"{self.file.path.name}, line {self.file.lines[index]}"
