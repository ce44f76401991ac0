"""The tree of keys that a configuration model defines."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from engine.config.choice import Choice, Choices

KeyPath = tuple[str | int, ...]
"""Keys (and list positions) from the top of a configuration down to a value."""


def dotted(path: KeyPath) -> str:
    """Return ``("optimizer", "betas", 1)`` as ``optimizer.betas[1]``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".")


def section_of(field: FieldInfo | None) -> type[BaseModel] | None:
    """Return the model of a key that is a section or a list of sections, else None."""
    return _section_in(field.annotation) if field is not None else None


def fields_of(section: type[BaseModel], value: object = None) -> dict[str, FieldInfo]:
    """Return the keys that ``section`` takes, with their fields.

    Where it chooses by name (``engine.config.choice``), those of what ``value`` names; without a
    value, those of every known name.
    """
    if issubclass(section, Choice | Choices):
        return section.keys_for(value)
    return section.model_fields


def field_at(model: type[BaseModel], path: KeyPath, value: object = None) -> FieldInfo | None:
    """Return the field that ``path`` names or lies in; None if ``model`` has no such key.

    Args:
        value: what was read for ``model``: plain lists and dictionaries.
    """
    section: type[BaseModel] | None = model
    field = None
    for part in path:
        if isinstance(part, str) and section is not None:
            field = fields_of(section, value).get(part)
            if field is None:
                return None
            section = section_of(field)
        value = value_at(value, part)
    return field


def value_at(values: object, key: str | int) -> object:
    """Return the value at ``key`` of a list or dictionary, or None."""
    if isinstance(values, dict):
        return values.get(key)
    if isinstance(values, list) and isinstance(key, int) and key < len(values):
        return values[key]
    return None


def all_keys(model: type[BaseModel], value: object = None) -> Iterator[tuple[str, ...]]:
    """Yield every key of ``model``, sections included, in order; ``value`` as in field_at."""
    for name, field in fields_of(model, value).items():
        yield (name,)
        inner = section_of(field)
        if inner is not None:
            yield from ((name, *below) for below in all_keys(inner, value_at(value, name)))


def suggestion(model: type[BaseModel], path: KeyPath, value: object = None) -> str:
    """Return the valid key most like the unknown ``path``, or else the keys valid at its place."""
    *outer, name = path
    section = section_of(field_at(model, tuple(outer), value)) or model
    there = value
    for part in outer:
        there = value_at(there, part)
    fields = fields_of(section, there)
    owners = section.owners(str(name)) if issubclass(section, Choice) else []
    if owners:
        chosen = value_at(there, "name")
        return f"{', '.join(owners)} has it, {chosen} has not; valid here: {', '.join(fields)}"
    if close := difflib.get_close_matches(str(name), fields, n=1):
        return f"did you mean {dotted((*outer, close[0]))}?"
    by_name = {key[-1]: dotted(key) for key in all_keys(model, value)}
    if close := difflib.get_close_matches(str(name), by_name, n=1, cutoff=0.8):
        return f"did you mean {by_name[close[0]]}?"
    more = f"; a module with a class {section.attribute}" if issubclass(section, Choices) else ""
    return f"valid here: {', '.join(fields)}{more}"


def _section_in(kind: object) -> type[BaseModel] | None:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    return next(filter(None, map(_section_in, get_args(kind))), None)
