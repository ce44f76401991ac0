"""The tree of keys that a configuration model defines."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

KeyPath = tuple[str | int, ...]
"""Keys (and list positions) from the top of a configuration down to a value."""


def dotted(path: KeyPath) -> str:
    """``("optimizer", "betas", 1)`` as ``optimizer.betas[1]``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".")


def section_of(field: FieldInfo | None) -> type[BaseModel] | None:
    """The model of a key that is a section or a list of sections, else None."""
    return _section_in(field.annotation) if field is not None else None


def field_at(model: type[BaseModel], path: KeyPath) -> FieldInfo | None:
    """The field that ``path`` names or lies in; None if ``model`` has no such key."""
    names = [part for part in path if isinstance(part, str)]
    if not names:
        return None
    field = model.model_fields.get(names[0])
    inner = section_of(field)
    return field_at(inner, tuple(names[1:])) if inner is not None and len(names) > 1 else field


def all_keys(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """Every key of ``model``, sections included, from top to bottom."""
    for name, field in model.model_fields.items():
        yield (name,)
        inner = section_of(field)
        if inner is not None:
            yield from ((name, *below) for below in all_keys(inner))


def suggestion(model: type[BaseModel], path: KeyPath) -> str:
    """The valid key most like the unknown key ``path``, or else the keys valid at its place."""
    *outer, name = path
    section = section_of(field_at(model, tuple(outer))) or model
    if close := difflib.get_close_matches(str(name), section.model_fields, n=1):
        return f"did you mean {dotted((*outer, close[0]))}?"
    by_name = {key[-1]: dotted(key) for key in all_keys(model)}
    if close := difflib.get_close_matches(str(name), by_name, n=1, cutoff=0.8):
        return f"did you mean {by_name[close[0]]}?"
    return f"valid here: {', '.join(section.model_fields)}"


def _section_in(kind: object) -> type[BaseModel] | None:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    return next(filter(None, map(_section_in, get_args(kind))), None)
