"""The tokenizer of a Hugging Face model folder, read without transformers.

A sampler needs text to ids, ids to text, and the ids that end a response. `tokenizers` does that
from ``tokenizer.json`` in milliseconds; importing transformers takes seconds in every process.
What the folder's other files add to it is decided in ``tokenizer_backend.py`` (what stands around
a prompt) and ``ending_tokens.py`` (what ends a response).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import tokenizers
from blake3 import blake3

from engine.data.ending_tokens import EndingTokens
from engine.data.model_files import read_object
from engine.data.tokenizer_backend import around, read_backend
from engine.data.tokenizer_settings import TokenizerSettings
from engine.errors import RunError

_DECIDING = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


class Tokenizer:
    """Text to token ids and back, and the ids that end a response.

    Attributes:
        eos_ids: ids that end a response, the model's main one first: servers stop at them, the
            decoder takes them off, training ends answers with them.
        vocabulary_size: rows of the model's embedding (``vocab_size`` of config.json), which may be
            more than the tokenizer has tokens.
        front: ids that are put in front of a text (often a bos).
        remarks: sentences about what the folder's files do not say in the same way, for a log.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        eos_ids: tuple[int, ...],
        vocabulary_size: int,
        remarks: Sequence[str] = (),
    ) -> None:
        self._backend = backend
        self.eos_ids = eos_ids
        self.vocabulary_size = vocabulary_size
        self.remarks = tuple(remarks)
        self.front, self._behind = around(backend)

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read tokenizer.json and what config.json and the files beside it say of it.

        Those may be missing: generation_config.json, tokenizer_config.json and, of older folders,
        special_tokens_map.json.

        Raises:
            RunError: a file is missing or malformed, no token ends a response, or the tokenizer
                knows an id, or an eos id is, beyond the model's vocabulary.
        """
        config = read_object(folder / "config.json")
        vocabulary_size = config.get("vocab_size")
        if not isinstance(vocabulary_size, int):
            raise RunError(
                f"{folder / 'config.json'}: vocab_size must be an integer,"
                f" found {vocabulary_size!r}"
            )
        settings = TokenizerSettings.load(folder)
        backend, remarks = read_backend(folder / "tokenizer.json", settings, vocabulary_size)
        eos = settings.named.get("eos_token")
        eos_token = None if eos is None else backend.token_to_id(eos)
        endings = EndingTokens.read(folder, config, eos_token, vocabulary_size)
        if difference := endings.difference(lambda one: str(backend.id_to_token(one))):
            remarks.append(difference)
        return cls(backend, eos_ids=endings.ids, vocabulary_size=vocabulary_size, remarks=remarks)

    def encode(self, text: str, *, add_special: bool = True) -> list[int]:
        """Return the ids of a text.

        Args:
            add_special: with what the tokenizer itself puts in front (often a bos), as a prompt
                without a chat template wants it. A text that begins with that gets no second one.
        Raises:
            RunError: the tokenizer has no token for a word of it.
        """
        try:
            ids = self._backend.encode(text, add_special_tokens=add_special).ids
        except Exception as error:  # tokenizers raises nothing narrower
            raise RunError(f"cannot tokenize {text[:80]!r}: {error}") from error
        return self._once(ids) if add_special else list(ids)

    def encode_many(self, texts: Sequence[str], *, add_special: bool = True) -> list[list[int]]:
        """Return the ids of several texts, on several threads; see :meth:`encode`."""
        try:
            encoded = self._backend.encode_batch_fast(list(texts), add_special_tokens=add_special)
        except Exception:  # it does not say which text it is about
            return [self.encode(text, add_special=add_special) for text in texts]
        return [self._once(one.ids) if add_special else list(one.ids) for one in encoded]

    def encode_each(
        self, texts: Sequence[str], *, add_special: bool = True
    ) -> Iterator[list[int] | RunError]:
        """Yield the ids of each text, or why it has none; see :meth:`encode`."""
        try:
            yield from self.encode_many(texts, add_special=add_special)
        except RunError:  # it is about the first; a person wants to hear of all
            for text in texts:
                try:
                    yield self.encode(text, add_special=add_special)
                except RunError as error:
                    yield error

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of a response without the eos that may end it.

        Special tokens anywhere else stay visible: a response that contains them is not clean.
        """
        if tokens and tokens[-1] in self.eos_ids:
            tokens = tokens[:-1]
        return self.text_of(tokens)

    def text_of(self, tokens: Sequence[int]) -> str:
        """Return the text of all ``tokens``, special ones included."""
        return str(self._backend.decode(list(tokens), skip_special_tokens=False))

    def _once(self, ids: Sequence[int]) -> list[int]:
        """Return ``ids`` without what was put in front of a text that begins with the same."""
        many = len(self.front)
        has_it = many and tuple(ids[many : 2 * many]) == self.front
        return list(ids[many:] if has_it else ids)


def tokenizer_digest(folder: Path) -> str:
    """Return the BLAKE3 digest of everything in a folder that decides a text's ids.

    Raises:
        RunError: a file cannot be read.
    """
    hasher = blake3(str(read_object(folder / "config.json").get("vocab_size")).encode())
    for name in _DECIDING:
        file = folder / name
        try:
            content = file.read_bytes() if file.exists() else b""
        except OSError as error:
            raise RunError(f"{file}: cannot read it ({error.strerror})") from error
        hasher.update(f"\n{name} {len(content)}\n".encode()).update(content)
    return hasher.hexdigest()
