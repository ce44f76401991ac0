"""Run every check of a run's inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from engine.config.reader.keys import KeyPath, dotted
from engine.preflight import (
    connections,
    conversations,
    model_folder,
    prompt_sets,
    served_model,
    tokenizer,
)
from engine.preflight.finding import Finding
from engine.preflight.sections import Sections

Check = Callable[[Sections], Iterable[Finding]]

CHECKS: tuple[Check, ...] = (
    model_folder.check,
    tokenizer.check,
    served_model.check,
    connections.check,
    prompt_sets.check,
    conversations.check,
)
"""Every check of this room, in the order in which their findings are listed."""


class Preflight:
    """Looks at the inputs of a configuration; for ``engine.config.reader.loading.load``."""

    def __init__(self, say: Callable[[str], None], checks: Iterable[Check]) -> None:
        """Look at nothing yet.

        Args:
            say: told each warning, and what a check that takes long is doing.
            checks: made in this order; those of a recipe are ``engine.run.run_checks.checks``.
        """
        self._say, self._checks = say, tuple(checks)

    def __call__(self, valid: Mapping[str, Any]) -> list[tuple[KeyPath, str]]:
        """Return the key and the sentence of each problem; say the warnings.

        Args:
            valid: the top-level keys that are right by themselves.
        """
        sections = Sections(valid, self._say)
        findings = [finding for check in self._checks for finding in check(sections)]
        for one in findings:
            if not one.refuses:
                self._say(f"warning: {dotted(one.key)}: {one.says}")
        return [(one.key, one.says) for one in findings if one.refuses]
