"""Tokenized samples on disk, read through memory maps.

A dataset is a folder of four files, numbers little-endian without any header:

- ``dataset.json``: the counts below and the format's name; written last, so that a folder without
  it is one whose writing did not finish.
- ``tokens.bin``: the ids of all samples end to end, prompt before response; 16 bits each where the
  vocabulary has at most 65,536 ids, else 32 (unsigned).
- ``offsets.bin``: int64 [samples + 1]; sample i is tokens[offsets[i] : offsets[i + 1]].
- ``prompts.bin``: int32 [samples]; how many tokens of a sample are its prompt, at least one.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.errors import RunError
from engine.platform.files import replace_text, sync, writing

if TYPE_CHECKING:
    from engine.data.packing import TokenIds  # its rows are torch's; checks before a run have none

TokenArray = npt.NDArray[np.unsignedinteger[Any]]

_TOKENS, _OFFSETS, _PROMPTS = "tokens.bin", "offsets.bin", "prompts.bin"


class _Header(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["r1-engine tokens 1"] = "r1-engine tokens 1"
    vocab_size: int = Field(ge=1, le=1 << 32)
    samples: int = Field(ge=1)
    tokens: int = Field(ge=2)

    @property
    def token_type(self) -> np.dtype[Any]:
        return _token_type(self.vocab_size)


class TokenDataset:
    """The samples of one folder. Pickles as its path, so other processes map the same pages.

    Attributes:
        vocab_size: every token id is below it; a model needs at least as many embeddings.
    """

    def __init__(self, folder: Path) -> None:
        """Open ``folder`` and look at every sample's bounds, at no token.

        Raises:
            RunError: it is no whole dataset of this format, or its files do not fit each other.
        """
        self._folder = folder
        header = _read_header(folder)
        self.vocab_size = header.vocab_size
        self._tokens = _mapped(folder / _TOKENS, header.token_type, header.tokens)
        self._offsets = _mapped(folder / _OFFSETS, np.dtype("<i8"), header.samples + 1)
        self._prompts = _mapped(folder / _PROMPTS, np.dtype("<i4"), header.samples)
        self._check_bounds()

    def __len__(self) -> int:
        return len(self._prompts)

    def __reduce__(self) -> tuple[type[TokenDataset], tuple[Path]]:
        return TokenDataset, (self._folder,)

    def sample(self, index: int) -> tuple[TokenArray, TokenArray]:
        """Return prompt and response of sample ``index``, views of the memory map.

        Only their lengths are known before their numbers are looked at.
        """
        start, end = int(self._offsets[index]), int(self._offsets[index + 1])
        split = start + int(self._prompts[index])
        return self._tokens[start:split], self._tokens[split:end]

    def _check_bounds(self) -> None:
        lengths = np.diff(self._offsets)
        if self._offsets[0] != 0 or self._offsets[-1] != len(self._tokens) or lengths.min() < 2:
            raise RunError(
                f"{self._folder / _OFFSETS}: expected ascending offsets from 0 to"
                f" {len(self._tokens)}, two tokens and more apart; it belongs to other tokens"
            )
        if self._prompts.min() < 1 or (self._prompts > lengths).any():
            raise RunError(
                f"{self._folder / _PROMPTS}: expected prompts of one token up to their sample's"
                " length; it belongs to other samples"
            )


def write_dataset(
    folder: Path, samples: Iterable[tuple[TokenIds, TokenIds]], vocab_size: int
) -> None:
    """Write samples, each (prompt tokens, response tokens), one by one into a new dataset.

    Args:
        vocab_size: every token id must be below it.
    Raises:
        RunError: the folder holds a dataset, a sample has no prompt, less than two tokens or an id
            outside of the vocabulary, or there is no sample at all.
    """
    header_file = folder / "dataset.json"
    if header_file.exists():
        raise RunError(f"{folder}: expected no dataset there, found one; it is never overwritten")
    folder.mkdir(parents=True, exist_ok=True)
    offsets, prompts = array("q", [0]), array("i")
    with (folder / _TOKENS).open("wb") as file:
        for prompt, response in samples:
            where = f"{folder}: sample {len(prompts)}"
            sequence = np.array([*prompt, *response], np.int64)
            if not len(prompt) or len(sequence) < 2:
                raise RunError(f"{where}: expected a prompt and at least two tokens")
            if sequence.min() < 0 or sequence.max() >= vocab_size:
                raise RunError(f"{where}: expected token ids below {vocab_size}, found others")
            with writing(folder / _TOKENS):
                file.write(sequence.astype(_token_type(vocab_size)).tobytes())
            offsets.append(offsets[-1] + len(sequence))
            prompts.append(len(prompt))
    if not prompts:
        raise RunError(f"{folder}: expected at least one sample to write, found none")
    with writing(folder):
        (folder / _OFFSETS).write_bytes(np.asarray(offsets, "<i8").tobytes())
        (folder / _PROMPTS).write_bytes(np.asarray(prompts, "<i4").tobytes())
        for name in (_TOKENS, _OFFSETS, _PROMPTS):
            sync(folder / name)  # the header that says that all is there must not outlive them
    header = _Header(vocab_size=vocab_size, samples=len(prompts), tokens=offsets[-1])
    replace_text(header_file, header.model_dump_json(indent=2))


def _token_type(vocab_size: int) -> np.dtype[Any]:
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def _read_header(folder: Path) -> _Header:
    file = folder / "dataset.json"
    if not file.is_file():
        raise RunError(f"{file}: not found; {folder} is no token dataset, or not wholly written")
    try:
        return _Header.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "content"
        raise RunError(f"{file}: not the header of a token dataset: {where}: {first['msg']}") from (
            error
        )


def _mapped(file: Path, dtype: np.dtype[Any], count: int) -> npt.NDArray[Any]:
    """Map ``count`` numbers, which must be the whole file."""
    expected = count * dtype.itemsize
    found = file.stat().st_size if file.is_file() else None
    if found != expected:
        raise RunError(
            f"{file}: expected {expected} bytes ({count} numbers of {dtype.itemsize}),"
            f" found {'no file' if found is None else f'{found} bytes'};"
            " it is truncated or of another dataset"
        )
    return np.asarray(np.memmap(file, dtype, mode="r"))  # a plain view: slicing it is cheaper
