"""The parts of a configuration that are right by themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class Sections:
    """The top-level keys of a configuration that have no problem of their own, by name.

    Checks of inputs go on where another key is wrong, so that one look finds every problem.

    Attributes:
        values: the keys and their values.
        say: shows a person what a check that takes long is doing.
    """

    def __init__(self, values: Mapping[str, Any], say: Callable[[str], None]) -> None:
        self.values, self.say = values, say

    def get(self, key: str, kind: type[T]) -> T | None:
        """Return the value of ``key``; None if it is wrong, absent or no ``kind``."""
        value = self.values.get(key)
        return value if isinstance(value, kind) else None
