"""Dotted overrides from the command line: ``optimizer.lr=1e-4 layout.tp=2``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.config.document import DocumentError, parse
from engine.config.keys import KeyPath


def apply_overrides(
    values: dict[str, Any], overrides: Sequence[str]
) -> tuple[dict[KeyPath, str], list[str]]:
    """Write ``overrides`` into ``values``, the later over the earlier.

    Each is ``key.of.section=VALUE`` with VALUE in YAML (``[0.9, 0.95]`` is a list). Sections that
    ``values`` lacks are made.

    Returns:
        the override that set each key, and one sentence for each override that is none.
    """
    origins: dict[KeyPath, str] = {}
    problems: list[str] = []
    for override in overrides:
        try:
            path, value = _parse(override)
            _set(values, path, value)
        except ValueError as error:
            problems.append(f"override {override!r}: {error}")
        else:
            origins[path] = override
    return origins, problems


def _parse(override: str) -> tuple[tuple[str, ...], Any]:
    key, equals, text = override.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        raise ValueError("expected key=value, for example optimizer.lr=1e-4")
    try:
        value, _ = parse(text)
    except DocumentError as error:
        raise ValueError(f"expected a YAML value, found {text!r} ({error})") from None
    return path, value


def _set(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    section = values
    for depth, name in enumerate(path[:-1], start=1):
        inner = section.setdefault(name, {})
        if inner is None:  # a section whose keys are all left out
            inner = section[name] = {}
        if not isinstance(inner, dict):
            raise ValueError(f"{'.'.join(path[:depth])} is no section, it has no keys below it")
        section = inner
    section[path[-1]] = value
