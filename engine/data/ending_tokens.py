"""The tokens that end a response: one set for servers, decoder and training.

Three files name them and seldom in the same way. SGLang stops at those of config.json and of
generation_config.json together, and at the tokenizer's eos_token where it has a tokenizer; so does
everything here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.data.model_files import read_object_if_there
from engine.errors import RunError

_DEFAULTS = {"deepseek_v2": 2, "deepseek_v3": 1, "llama": 2, "mixtral": 2}
"""``eos_token_id`` that transformers, and with it the server, takes where config.json has none."""

_TOKENIZER, _GENERATION, _CONFIG = "the tokenizer", "generation_config.json", "config.json"


class EndingTokens:
    """Ids that end a response, and who says so.

    Attributes:
        ids: the model's main one first: the tokenizer's eos_token, else the first of
            generation_config.json, else of config.json.
    """

    def __init__(self, sources: Mapping[str, tuple[int, ...]]) -> None:
        self._sources = {source: ids for source, ids in sources.items() if ids}
        self.ids = tuple(dict.fromkeys(one for ids in self._sources.values() for one in ids))

    @classmethod
    def read(
        cls, folder: Path, config: Mapping[str, Any], eos_token: int | None, vocabulary_size: int
    ) -> EndingTokens:
        """Read generation_config.json and take the rest from those who have read it.

        Args:
            config: config.json.
            eos_token: id of the tokenizer's own eos_token, where it has one.
            vocabulary_size: of the model.

        Raises:
            RunError: an id is none of the model's, or nobody names one.
        """
        generation = read_object_if_there(folder / _GENERATION)
        sources: dict[str, tuple[int, ...]] = {}
        sources[_TOKENIZER] = () if eos_token is None else (eos_token,)
        for name, found in ((_GENERATION, generation), (_CONFIG, config)):
            sources[name] = _ids(found.get("eos_token_id"), folder / name, vocabulary_size)
        default = _DEFAULTS.get(str(config.get("model_type")))
        if "eos_token_id" not in config and default is not None and default < vocabulary_size:
            sources[f"default of {config['model_type']}"] = (default,)
        if not any(sources.values()):
            raise RunError(
                f"{folder}: expected a token that ends a response, found no eos_token_id in"
                " generation_config.json or config.json and no eos_token in tokenizer_config.json"
                " that tokenizer.json knows"
            )
        return cls(sources)

    def difference(self, text_of: Callable[[int], str]) -> str | None:
        """Return one clause about sources that do not agree, None where they do."""
        lists = {name: ids for name, ids in self._sources.items() if name != _TOKENIZER}
        if all(set(ids) == set(self.ids) for ids in lists.values()):
            return None
        who = {
            one: ", ".join(source for source, ids in self._sources.items() if one in ids)
            for one in self.ids
        }
        named = ", ".join(f"{text_of(one)} ({one}: {who[one]})" for one in self.ids)
        return f"a response ends at any of {named}"


def _ids(value: Any, file: Path, vocabulary_size: int) -> tuple[int, ...]:
    if value is None:
        return ()
    ids = value if isinstance(value, list) else [value]
    if not all(isinstance(one, int) and not isinstance(one, bool) for one in ids):
        raise RunError(f"{file}: eos_token_id must be one id or a list of ids, found {value!r}")
    if not all(0 <= one < vocabulary_size for one in ids):
        raise RunError(
            f"{file}: eos_token_id {ids} is not within the {vocabulary_size} ids of the model's"
            " vocabulary"
        )
    return tuple(ids)
