"""Apply dotted overrides from the command line: ``optimizer.lr=1e-4 layout.tp=2``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.config.reader.keys import KeyPath, dotted
from engine.config.reader.yaml_reader import DocumentError, parse


def apply_overrides(
    values: dict[str, Any], overrides: Sequence[str]
) -> tuple[dict[KeyPath, str], list[str]]:
    """Write ``overrides`` into ``values``, the later over the earlier.

    Each is ``key.of.section=VALUE`` with VALUE in YAML (``[0.9, 0.95]`` is a list); a number stands
    for an entry of a list (``stages.0.steps=10``). Sections that ``values`` lacks are made.

    Returns:
        the override that set each key, and one sentence for each override that is none.
    """
    origins: dict[KeyPath, str] = {}
    problems: list[str] = []
    for override in overrides:
        try:
            path, value = _parse(override)
            place = _set(values, path, value)
        except ValueError as error:
            problems.append(f"override {override!r}: {error}")
        else:
            origins.pop(place, None)  # the later one comes last
            origins[place] = override
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
    if isinstance(value, str) and text.strip().startswith(value):
        value = text.strip()  # in "run_dir=runs/try #2" the number sign begins no comment
    return path, value


def _set(values: dict[str, Any], path: tuple[str, ...], value: Any) -> KeyPath:
    """Write ``value`` at ``path`` and return the path, list positions as integers."""
    place: Any = values
    walked: list[str | int] = []
    while path:
        if walked:
            place = _below(place, walked[-1])
        if not isinstance(place, dict | list):
            raise ValueError(f"{dotted(tuple(walked))} is no section, it has no keys below it")
        length = 1
        if isinstance(place, list):
            walked.append(_position(place, path[0], walked))
        else:
            length = _length_of_key(place, path)
            walked.append(".".join(path[:length]))
        path = path[length:]
    place[walked[-1]] = value
    return tuple(walked)


def _length_of_key(section: dict[str, Any], path: Sequence[str]) -> int:
    """Count the parts of ``path`` that are one key: several where ``section`` has a dotted name."""
    lengths = range(len(path), 1, -1)
    return next((length for length in lengths if ".".join(path[:length]) in section), 1)


def _below(place: Any, key: str | int) -> Any:
    """Return the value at ``key``; a section that is left out, or left empty, is made."""
    if isinstance(place, dict) and place.get(str(key)) is None:
        place[key] = {}
    return place[key]


def _position(entries: list[Any], name: str, walked: Sequence[str | int]) -> int:
    if not (name.isdecimal() and int(name) < len(entries)):
        raise ValueError(
            f"{dotted(tuple(walked))} is a list with {len(entries)} entries, the first of them 0; "
            f"found {name!r}"
        )
    return int(name)
