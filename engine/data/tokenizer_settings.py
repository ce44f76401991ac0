"""Read what lies beside tokenizer.json and decides what it means.

tokenizer_config.json names the special tokens, the tokenizer's class and whether a prompt begins
with bos; in older folders special_tokens_map.json and added_tokens.json name tokens. All are read
as transformers does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from engine.data.model_files import read_object_if_there
from engine.errors import RunError

NAMES = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
"""Keys of tokenizer_config.json that name a special token of every model."""

_NAMED_BY_CLASS = {
    "LlamaTokenizer": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "Qwen2Tokenizer": dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>"),
}
"""What a class names where tokenizer_config.json has no such key."""

_CLASSES_WITH_FLAGS = frozenset(
    {
        "LlamaTokenizer",
        "LlamaTokenizerFast",
        "CodeLlamaTokenizer",
        "CodeLlamaTokenizerFast",
        "GemmaTokenizer",
        "GemmaTokenizerFast",
        "CohereTokenizerFast",
    }
)
"""Classes whose ``add_bos_token`` SGLang follows, and takes as true where it is not given."""


@dataclass(frozen=True)
class TokenizerSettings:
    """What tokenizer_config.json and special_tokens_map.json say.

    Attributes:
        tokenizer_class: as written, "" where none is.
        named: texts of special tokens by name, ``bos_token`` and the like.
        add_bos_token: as written; None where it is not.
        add_eos_token: likewise.
        numbered: tokens of added_tokens_decoder: they say how a token is found in a text.
        special: the other tokens that are written there or, in older folders, in
            added_tokens.json; those first, then special ones that have a name.
        add_prefix_space: whether a text is read as if a space stood before it, as written; None
            where it is not.
        split_special_tokens: whether special tokens that stand in a text are read as plain text.
    """

    tokenizer_class: str
    named: Mapping[str, str]
    add_bos_token: bool | None
    add_eos_token: bool | None
    numbered: tuple[AddedToken, ...]
    special: tuple[AddedToken, ...]
    add_prefix_space: bool | None
    split_special_tokens: bool

    @classmethod
    def load(cls, folder: Path) -> TokenizerSettings:
        """Read the files of a Hugging Face folder; those that are not there say nothing.

        Raises:
            RunError: a file is malformed.
        """
        file = folder / "tokenizer_config.json"
        config = read_object_if_there(file)
        added: dict[str, Any] = {}
        if "added_tokens_decoder" not in config:
            config |= read_object_if_there(folder / "special_tokens_map.json")
            added = read_object_if_there(folder / "added_tokens.json")
        tokenizer_class = config.get("tokenizer_class") or ""
        if not isinstance(tokenizer_class, str):
            raise RunError(f"{file}: tokenizer_class must be a text, found {tokenizer_class!r}")
        try:
            numbered, special = _numbered(config), _special(config)
            special = (*_added(added, special), *special)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"{file}: expected special tokens as texts, or as objects with a content, found"
                f" others ({type(error).__name__}: {error})"
            ) from error
        defaults = _NAMED_BY_CLASS.get(tokenizer_class.removesuffix("Fast"), {})
        return cls(
            tokenizer_class=tokenizer_class,
            named=_named({**defaults, **config}),
            add_bos_token=_flag(config, "add_bos_token", file),
            add_eos_token=_flag(config, "add_eos_token", file),
            numbered=numbered,
            special=special,
            add_prefix_space=_flag(config, "add_prefix_space", file),
            split_special_tokens=bool(_flag(config, "split_special_tokens", file)),
        )

    @property
    def knows_flags(self) -> bool:
        """Whether the tokenizer's class has ``add_bos_token``, and takes it as true by default."""
        return self.tokenizer_class in _CLASSES_WITH_FLAGS


def _flag(config: Mapping[str, Any], key: str, file: Path) -> bool | None:
    flag = config.get(key)
    if flag is not None and not isinstance(flag, bool):
        raise RunError(f"{file}: {key} must be true or false, found {flag!r}")
    return flag


def _named(config: Mapping[str, Any]) -> dict[str, str]:
    """Return special tokens by name; those of one model alone (``image_token``) included."""
    texts = {
        key: value.get("content") if isinstance(value, dict) and key in NAMES else value
        for key, value in config.items()
        if key.endswith("_token")
    }
    return {name: text for name, text in texts.items() if isinstance(text, str) and text}


def _numbered(config: Mapping[str, Any]) -> tuple[AddedToken, ...]:
    numbered = {int(n): fields for n, fields in (config.get("added_tokens_decoder") or {}).items()}
    return tuple(_token(fields) for _, fields in sorted(numbered.items()))


def _special(config: Mapping[str, Any]) -> tuple[AddedToken, ...]:
    named = [config[name] for name in _named(config)]
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    values = [*named, *(extra.values() if isinstance(extra, dict) else extra)]
    return tuple(_token(value, special=True) for value in values)


def _added(numbers: Mapping[str, int], special: tuple[AddedToken, ...]) -> list[AddedToken]:
    """Return the tokens of added_tokens.json, which says text and id alone, by id."""
    names = {token.content for token in special}
    return [
        AddedToken(text, special=text in names, normalized=text not in names)
        for text in sorted(numbers, key=lambda text: int(numbers[text]))
    ]


def _token(value: Any, **forced: bool) -> AddedToken:
    if isinstance(value, str):
        return AddedToken(value, **forced)
    fields = {key: flag for key, flag in value.items() if key not in ("__type", "content")}
    return AddedToken(value["content"], **{**fields, **forced})
