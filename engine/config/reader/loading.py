"""Read a configuration, and give its YAML; one error lists all of its problems."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from engine.config.inputs import CHECK_INPUTS
from engine.config.reader.keys import KeyPath, dotted, field_at, suggestion
from engine.config.reader.messages import expected, meaning
from engine.config.reader.overrides import apply_overrides
from engine.config.reader.yaml_reader import DocumentError, parse
from engine.errors import RunError

Config = TypeVar("Config", bound=BaseModel)
Look = Callable[[Mapping[str, Any]], Sequence[tuple[KeyPath, str]]]
"""Looks at the inputs that a configuration names: ``engine.preflight.preflight.Preflight``.

Takes the top-level keys that are right by themselves; returns the key and the sentence of each
problem.
"""

_LONGEST_QUOTE = 60  # characters of a wrong value that a message repeats


def load(
    model: type[Config],
    path: Path | str,
    overrides: Sequence[str] = (),
    *,
    look: Look | None = None,
) -> Config:
    """Read the YAML file ``path``, apply the dotted ``overrides`` and validate against ``model``.

    Types are strict: ``"2"``, ``2.0`` and ``true`` are no integers.

    Args:
        look: also look at the files that the configuration names, with this.

    Raises:
        RunError: the file cannot be read, or its message lists every problem: the key's dotted
            path and line, what was expected, what was found.
    """
    file = Path(path)
    values, lines = _read(file)
    set_by, problems = apply_overrides(values, overrides)
    origins = _origins(lines, set_by)
    context = CHECK_INPUTS if look is not None else None
    wrong: list[ErrorDetails] = []
    try:
        config = model.model_validate_json(json.dumps(values), strict=True, context=context)
    except ValidationError as error:
        wrong = error.errors()
    problems += [_sentence(model, values, details, origins) for details in wrong]
    if look is not None:
        valid = _valid_keys(model, values, wrong) if wrong else _keys_of(config)
        problems += [f"{dotted(key)}: {says}{_where(key, origins)}" for key, says in look(valid)]
    if len(problems) == 1:
        raise RunError(f"{file}: {problems[0]}")
    if problems:
        raise RunError("\n  ".join([f"{file}: {len(problems)} problems", *problems]))
    return config


def as_yaml(config: BaseModel) -> str:
    """Return ``config``, defaults included, as YAML that :func:`load` gives back unchanged."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read(file: Path) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RunError(f"no configuration file {file}{_similar_file(file)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"cannot read configuration file {file}: {error}") from None
    try:
        values, lines = parse(text)
    except DocumentError as error:
        raise RunError(f"{file}, line {error.line}: not valid YAML: {error}") from None
    if values is None:
        return {}, lines
    if not isinstance(values, dict):
        raise RunError(f"{file}: expected keys with values, found {_quote(values)}")
    return values, lines


def _keys_of(config: BaseModel) -> dict[str, Any]:
    return {name: getattr(config, name) for name in type(config).model_fields}


def _valid_keys(
    model: type[BaseModel], values: Mapping[str, Any], wrong: Sequence[ErrorDetails]
) -> dict[str, Any]:
    """Return the top-level keys of which no error speaks; without those that have no value."""
    bad = {details["loc"][0] for details in wrong if details["loc"]}
    found = {}
    for name, field in model.model_fields.items():
        if name in bad:
            continue
        if name in values:
            reader: TypeAdapter[Any] = TypeAdapter(field.rebuild_annotation())
            found[name] = reader.validate_json(json.dumps(values[name]), strict=True)
        elif not field.is_required():
            found[name] = field.get_default(call_default_factory=True, validated_data={})
    return found


def _similar_file(file: Path) -> str:
    near = file.parent if file.parent.is_dir() else Path("recipes/configs")
    names = {candidate.name: candidate for candidate in sorted(near.rglob("*.yaml"))}
    close = difflib.get_close_matches(file.name, names, n=1)
    return f"; did you mean {names[close[0]]}?" if close else ""


def _sentence(
    model: type[BaseModel],
    values: Mapping[str, Any],
    details: ErrorDetails,
    origins: Mapping[KeyPath, str],
) -> str:
    """Return one problem that pydantic found as ``key: expected ..., found ... (where)``."""
    path: KeyPath = details["loc"]
    field = field_at(model, path, values)
    in_list = isinstance(path[-1], int) if path else False
    if details["type"] == "extra_forbidden":
        what = f"unknown key, {suggestion(model, path, values)}"
    elif details["type"] == "value_error":  # a rule of ours, see section.py
        what = str(details["ctx"]["error"])
    elif field is None:
        what = details["msg"]
    elif details["type"] == "missing":
        what = f"missing, expected {expected(field, entry=in_list)}: {meaning(field)}".rstrip(": ")
    else:
        what = f"expected {expected(field, entry=in_list)}, found {_quote(details['input'])}"
    return f"{dotted(path)}: {what}{_where(path, origins)}"


def _origins(lines: Mapping[KeyPath, int], set_by: Mapping[KeyPath, str]) -> dict[KeyPath, str]:
    """Return where each value was written; an override replaces all values below its key."""
    origins = {key: f"line {line}" for key, line in lines.items()}
    for path, override in set_by.items():
        origins = {key: place for key, place in origins.items() if key[: len(path)] != path}
        origins[path] = f"override {override}"
    return origins


def _where(path: KeyPath, origins: Mapping[KeyPath, str]) -> str:
    """Return where ``path``'s value was written: there, below it, or in the section around it."""
    below = [key for key in origins if key[: len(path)] == path]
    around = [path[:length] for length in range(len(path) - 1, 0, -1)]
    found = next((origins[key] for key in [path, *below, *around] if key in origins), None)
    return f" ({found})" if found else ""


def _quote(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "..."
