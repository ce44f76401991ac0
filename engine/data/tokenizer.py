"""The tokenizer of a Hugging Face model folder, read without transformers.

A sampler needs text to ids, ids to text, and the ids that end a response. `tokenizers` does that
from ``tokenizer.json`` in milliseconds; importing transformers takes seconds in every process.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers

from engine.errors import RunError


class Tokenizer:
    """Text to token ids and back, and the ids that end a response.

    Attributes:
        eos_ids: ids that end a response, the model's main one first.
        vocabulary_size: rows of the model's embedding (``vocab_size`` of config.json), which may be
            more than the tokenizer has tokens.
    """

    def __init__(
        self, backend: tokenizers.Tokenizer, *, eos_ids: tuple[int, ...], vocabulary_size: int
    ) -> None:
        self._backend = backend
        self.eos_ids = eos_ids
        self.vocabulary_size = vocabulary_size

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read tokenizer.json, config.json and, where there is one, generation_config.json.

        The ids that end a response are ``eos_token_id`` (one or several) of generation_config.json,
        else of config.json.

        Raises:
            RunError: a file is missing or malformed, no eos id is given, or the tokenizer knows an
                id, or an eos id is, beyond the model's vocabulary.
        """
        config = _read_json(folder / "config.json")
        vocabulary_size = config.get("vocab_size")
        if not isinstance(vocabulary_size, int):
            raise RunError(
                f"{folder / 'config.json'}: vocab_size must be an integer,"
                f" found {vocabulary_size!r}"
            )
        backend = _read_tokenizer(folder / "tokenizer.json")
        largest = max(backend.get_vocab(with_added_tokens=True).values(), default=-1)
        if largest >= vocabulary_size:
            raise RunError(
                f"{folder}: tokenizer.json has token id {largest},"
                f" but vocab_size in config.json is {vocabulary_size}"
            )
        eos_ids = _eos_ids(folder, config)
        if not all(0 <= eos < vocabulary_size for eos in eos_ids):
            raise RunError(
                f"{folder}: eos_token_id {list(eos_ids)} is not within the {vocabulary_size} ids"
                " of the model's vocabulary"
            )
        return cls(backend, eos_ids=eos_ids, vocabulary_size=vocabulary_size)

    def encode(self, text: str, *, add_special: bool = True) -> list[int]:
        """Return the ids of a text.

        Args:
            add_special: with what the tokenizer itself puts in front (often a bos), as a prompt
                without a chat template wants it.
        Raises:
            RunError: the tokenizer has no token for a word of it.
        """
        try:
            return list(self._backend.encode(text, add_special_tokens=add_special).ids)
        except Exception as error:  # tokenizers raises nothing narrower
            raise RunError(f"cannot tokenize {text[:80]!r}: {error}") from error

    def encode_many(self, texts: Sequence[str], *, add_special: bool = True) -> list[list[int]]:
        """Return the ids of several texts, on several threads; see :meth:`encode`."""
        try:
            encoded = self._backend.encode_batch_fast(list(texts), add_special_tokens=add_special)
        except Exception:  # it does not say which text it is about
            return [self.encode(text, add_special=add_special) for text in texts]
        return [list(one.ids) for one in encoded]

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of a response without the eos that may end it.

        Special tokens anywhere else stay visible: a response that contains them is not clean.
        """
        if tokens and tokens[-1] in self.eos_ids:
            tokens = tokens[:-1]
        return str(self._backend.decode(list(tokens), skip_special_tokens=False))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path}: cannot read it ({error.strerror})") from error
    except ValueError as error:
        raise RunError(f"{path}: expected JSON ({error})") from error
    if not isinstance(content, dict):
        raise RunError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def _read_tokenizer(path: Path) -> tokenizers.Tokenizer:
    if not path.is_file():
        raise RunError(f"{path}: not found; the tokenizer is read from this file alone")
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise RunError(f"{path}: not a tokenizer of the tokenizers library ({error})") from error


def _eos_ids(folder: Path, config: dict[str, Any]) -> tuple[int, ...]:
    generation = folder / "generation_config.json"
    eos = _read_json(generation).get("eos_token_id") if generation.exists() else None
    if eos is None:
        eos = config.get("eos_token_id")
    eos_ids = eos if isinstance(eos, list) else [eos]
    if not eos_ids or not all(isinstance(one, int) for one in eos_ids):
        raise RunError(
            f"{folder}: eos_token_id in generation_config.json or config.json must be one id or a"
            f" list of ids, found {eos!r}"
        )
    return tuple(eos_ids)
