"""Describe in words what a configuration key takes, for error messages and ``--help``."""

from __future__ import annotations

from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from engine.config.choice import Choice
from engine.config.reader.keys import fields_of, section_of

_ONE = {int: "an integer", float: "a number", str: "a text", bool: "true or false", Path: "a path"}
_MANY = {int: "integers", float: "numbers", str: "texts", bool: "truth values", Path: "paths"}


def expected(field: FieldInfo, *, entry: bool = False) -> str:
    """Return in words what ``field``, or one entry of the list that it takes, has to be.

    For example ``an integer >= 1`` or ``one of plain, r1_zero``.
    """
    kind, metadata = field.annotation, field.metadata
    if entry and get_origin(kind) in (list, tuple):
        kind, metadata = get_args(kind)[0], []
    section = section_of(field)
    if section is not None:
        form = "a section" if section is kind else "a list of sections"
        if issubclass(section, Choice):
            return f"{form} with the key name and the options of what it names"
        return f"{form} with the keys {', '.join(fields_of(section))}"
    return _words(kind, metadata)


def meaning(field: FieldInfo) -> str:
    """Return the description of ``field``, or else the docstring of its section."""
    section = section_of(field)
    about = (section.__doc__ or "") if section is not None else ""
    return field.description or about.partition("\n")[0].rstrip(".")


def _words(annotation: Any, metadata: list[Any]) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(arguments[0], [*arguments[1:], *metadata])
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (Union, UnionType):
        return " or ".join(_words(kind, metadata) for kind in arguments)
    if origin in (tuple, list):
        count = f"{len(arguments)} " if origin is tuple and Ellipsis not in arguments else ""
        return f"a list of {count}{_many(arguments[0])}"
    if origin is dict:
        return f"a mapping of names to {_many(arguments[1])}"
    if annotation is NoneType:
        return "null"
    return _ONE.get(annotation, str(annotation)) + _bounds(metadata)


def _many(item: Any) -> str:
    metadata: list[Any] = []
    if get_origin(item) is Annotated:
        item, *metadata = get_args(item)
    return _MANY.get(item, "values") + _bounds(metadata)


def _bounds(metadata: list[Any]) -> str:
    """Return the range that ``metadata`` sets, e.g. `` >= 0 and < 1``."""
    found = []
    for entry in metadata:
        for bound in getattr(entry, "metadata", [entry]):  # a FieldInfo holds its own list
            match bound:
                case Ge(limit):
                    found.append(f" >= {limit}")
                case Gt(limit):
                    found.append(f" > {limit}")
                case Le(limit):
                    found.append(f" <= {limit}")
                case Lt(limit):
                    found.append(f" < {limit}")
    return " and".join(found)
