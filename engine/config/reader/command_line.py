"""The command line of every recipe: CONFIG, overrides, ``--check``, ``--print``, ``--help``."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from engine.config.choice import Choice
from engine.config.reader.keys import fields_of, section_of
from engine.config.reader.loading import Look, as_yaml, load
from engine.config.reader.messages import expected, meaning

Config = TypeVar("Config", bound=BaseModel)

_WIDTH = 96
_EXAMPLES = """\
examples:
  python -m {recipe} CONFIG --check                     list every problem, start nothing
  python -m {recipe} CONFIG seed=2 run_dir=runs/b --print   show what a run would use
  python -m launchers.local {recipe} CONFIG seed=2      run it on this machine
An override is the dotted path of a key and a YAML value, quoted where the shell would touch it:
  'optimizer.betas=[0.9, 0.95]'   checkpoint.every=20   stages.0.steps=10 (a list's first entry)
"""


def read(
    model: type[Config], recipe: str, look: Look, arguments: Sequence[str] | None = None
) -> Config:
    """Return the configuration that the command line asks for.

    ``--check``, ``--print`` and ``--help`` answer on standard output and exit with status 0.

    Args:
        model: the recipe's configuration.
        recipe: the recipe's module name, e.g. ``recipes.zero``.
        look: looks at input files where ``--check`` asks for it.
        arguments: without the program's name; default: this process's.

    Raises:
        RunError: the configuration has problems; all of them are listed. With ``--check`` those of
            input files are among them.
    """
    parsed = _parser(model, recipe).parse_intermixed_args(arguments)
    config = load(model, parsed.config, parsed.overrides, look=look if parsed.check else None)
    if parsed.check:
        print(f"{parsed.config}: no problems found")
    if parsed.print:
        print(as_yaml(config), end="")
    if parsed.check or parsed.print:
        raise SystemExit(0)
    return config


def _parser(model: type[BaseModel], recipe: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {recipe}",
        description=model.__doc__,
        epilog=f"{_EXAMPLES.format(recipe=recipe)}\nkeys of CONFIG:\n{_keys(model)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "config", metavar="CONFIG", type=Path, help="YAML file, see recipes/configs"
    )
    parser.add_argument(
        "overrides", metavar="key=value", nargs="*", help="replaces a value of CONFIG"
    )
    parser.add_argument(
        "--check", action="store_true", help="list every problem of the configuration and exit"
    )
    parser.add_argument(
        "--print", action="store_true", help="print the resolved configuration and exit"
    )
    return parser


def _keys(model: type[BaseModel], indent: str = "  ") -> str:
    """Return one paragraph for each key: its meaning, what it takes, its default."""
    if issubclass(model, Choice):
        return _choices(model, indent)
    lines = []
    for name, field in fields_of(model).items():
        section = section_of(field)
        if section is None:
            facts = f" ({expected(field)}{_default(field)})"
        else:
            facts = "" if section is field.annotation else " (a list; each entry has the keys:)"
        lines.append(_paragraph(f"{name}: {meaning(field)}{facts}", indent))
        if section is not None:
            lines.append(_keys(section, indent + "  "))
    return "\n".join(lines)


def _choices(model: type[Choice], indent: str) -> str:
    """Return the key ``name``, then the options of each known name."""
    lines = [_paragraph(f"name: {meaning(model.model_fields['name'])} ({model.names()})", indent)]
    for name, found in model.known().items():
        about = (found.__doc__ or "").partition("\n")[0]
        lines.append(_paragraph(f"with name {name}: {about}", indent))
        lines.append(_keys(found, indent + "  "))
    return "\n".join(lines)


def _paragraph(text: str, indent: str) -> str:
    below = indent + "    "
    return textwrap.fill(text, _WIDTH, initial_indent=indent, subsequent_indent=below)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    return f"; default {'null' if default is None else default}"
