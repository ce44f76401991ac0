"""Parse YAML text into plain values and the line of every key.

Scalars follow YAML 1.2's core schema, not PyYAML's 1.1: ``3e-4`` is a number, ``010`` is ten,
``yes`` and ``1:30`` are texts. Aliases, tags and repeated keys are refused.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from engine.config.reader.keys import KeyPath

_SCALARS = {
    "null": re.compile(r"^(?:~|null|Null|NULL|)$"),
    "bool": re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"),
    "int": re.compile(r"^[-+]?[0-9]+$"),
    "float": re.compile(
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
}
_TAG = "tag:yaml.org,2002:"


class DocumentError(Exception):
    """The text is not the YAML of a configuration; see :func:`parse`."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class _CoreLoader(yaml.SafeLoader):
    """Composes nodes whose scalars are tagged by the core schema."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012  (PyYAML's own interface)

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose one node; an alias would make one value stand in two places."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise DocumentError(f"alias *{event.anchor} is not supported", _line(event))
        return super().compose_node(parent, index)


for _name, _pattern in _SCALARS.items():
    _CoreLoader.add_implicit_resolver(_TAG + _name, _pattern, None)


def parse(text: str) -> tuple[Any, dict[KeyPath, int]]:
    """Return the value of ``text`` and the line (from 1) of every key and list entry.

    Values are None, bool, int, float, str, list and dict; keys are always str.

    Raises:
        DocumentError: ``text`` is not YAML, or uses an alias, a tag or a key twice.
    """
    try:
        node = yaml.compose(text, Loader=_CoreLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = " ".join(part for part in (error.context, error.problem) if part)
        raise DocumentError(message, mark.line + 1 if mark else 1) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise DocumentError(f"character #x{int(error.character):04x} not allowed", line) from None
    except RecursionError:
        raise DocumentError("too many levels", 1) from None
    lines: dict[KeyPath, int] = {}
    return (None if node is None else _value(node, (), lines)), lines


def _value(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int]) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
        lines |= {(*path, index): _line(item) for index, item in enumerate(node.value)}
        return [_value(item, (*path, index), lines) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
        return _mapping(node, path, lines)
    raise DocumentError(f"tag {node.tag} is not supported", _line(node))


def _mapping(node: yaml.MappingNode, path: KeyPath, lines: dict[KeyPath, int]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise DocumentError("expected a name as key, found a list or mapping", _line(key_node))
        key = _text(key_node)
        if key in values:
            first = lines[(*path, key)]
            raise DocumentError(
                f"key {key} stands here again, first in line {first}", _line(key_node)
            )
        lines[(*path, key)] = _line(key_node)
        values[key] = _value(value_node, (*path, key), lines)
    return values


def _scalar(node: yaml.ScalarNode) -> bool | int | float | str | None:
    text: str = node.value
    match node.tag.removeprefix(_TAG):
        case "str":
            return _text(node)
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            try:
                return int(text)
            except ValueError:  # Python's limit on digits
                raise DocumentError(f"a number of {len(text):,} digits", _line(node)) from None
        case "float":
            return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
        case _:
            raise DocumentError(f"tag {node.tag} is not supported", _line(node))


def _text(node: yaml.ScalarNode) -> str:
    text: str = node.value
    if any("\ud800" <= character <= "\udfff" for character in text):  # of an escape
        raise DocumentError(f"{text[:60]!a} has half a character", _line(node))
    return text


def _line(part: yaml.Node | yaml.Event) -> int:
    return part.start_mark.line + 1 if part.start_mark else 1
