"""Render messages with a model's own chat template, as transformers does.

Templates are Jinja programs that come with a model. They run as in transformers'
``apply_chat_template`` (same environment, same names, tested equal), without its imports: in a
sandbox that forbids to change what is handed in and to reach Python through it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, TypedDict

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from engine.data.tokenizer_settings import TokenizerSettings
from engine.errors import RunError


class Message(TypedDict):
    """One turn of a conversation: who speaks (system, user, assistant, ...), and what."""

    role: str
    content: str


class ChatTemplate:
    """Renders conversations.

    Attributes:
        text: the template's source.
        special_tokens: what the template knows by name: ``bos_token`` and the like.
    """

    def __init__(self, text: str, special_tokens: Mapping[str, str], *, name: str) -> None:
        """Compile it.

        Args:
            name: what messages call the template, usually the model's folder.
        Raises:
            RunError: it is no Jinja template.
        """
        self.text = text
        self.special_tokens = dict(special_tokens)
        self._name = name
        try:
            self._template = _environment().from_string(text)
        except jinja2.TemplateError as error:
            raise RunError(f"{name}: the chat template cannot be compiled: {error}") from error

    @classmethod
    def load(cls, folder: Path) -> ChatTemplate:
        """Read the template of a Hugging Face folder and its tokens' names.

        Raises:
            RunError: there is no template, or a file cannot be read.
        """
        text = _template_text(folder)
        if text is None:
            raise RunError(
                f"{folder}: expected a chat template (chat_template.jinja, or chat_template in"
                " tokenizer_config.json), found none; use another model, or data.template=plain"
            )
        return cls(text, TokenizerSettings.load(folder).named, name=str(folder))

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """Return the conversation as text.

        Args:
            add_generation_prompt: end with what stands before an answer, for the model to go on.
        Raises:
            RunError: the template refuses the conversation; with its own words.
        """
        try:
            return self._template.render(
                messages=list(messages),
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self.special_tokens,
            )
        except Exception as error:  # a template is a program: it can raise anything
            raise RunError(f"{self._name}: the chat template refuses it: {error}") from error


class _Generation(Extension):
    """``{% generation %}`` marks answers for masks, which are not made here: what is in it stays.

    Like a macro it keeps names that are set inside.
    """

    tags = {"generation"}  # noqa: RUF012 - jinja2's own way to say it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _now
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter would write HTML entities."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _template_text(model: Path) -> str | None:
    """Return the chat template (Jinja) of a Hugging Face folder, or None where it has none.

    ``chat_template.jinja`` comes before ``chat_template`` in tokenizer_config.json; of several
    templates there the one that is named default counts. That is how transformers looks.

    Raises:
        RunError: a file cannot be read, or there are several templates and no default.
    """
    file = model / "chat_template.jinja"
    try:
        if file.is_file():
            return file.read_text(encoding="utf-8")
        file = model / "tokenizer_config.json"
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (OSError, ValueError) as error:
        raise RunError(f"{file}: cannot read it ({error})") from error
    template: Any = found.get("chat_template") if isinstance(found, dict) else None
    if isinstance(template, list):
        template = {one.get("name"): one.get("template") for one in template if type(one) is dict}
    if isinstance(template, dict):
        if not isinstance(template.get("default"), str):
            names = repr([*template])[:200]
            raise RunError(f"{file}: expected a chat template named default among {names}")
        template = template["default"]
    if template is not None and not isinstance(template, str):
        raise RunError(f"{file}: expected a text as chat_template, found {repr(template)[:60]}")
    return template
