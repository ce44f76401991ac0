"""Tokenize a prompt set once: checks before a run do it, the sampler reads what they have written.

The ids lie in the user's cache (``$XDG_CACHE_HOME``, else ``~/.cache``), in a file named by a
digest of all that decides them: the prompt file, the tokenizer, the template. Without a cache that
can be written everything works, and is tokenized again.
"""

from __future__ import annotations

import os
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path

from blake3 import blake3

from engine.data.prompt_file import Prompt, PromptFile, read_prompt_file
from engine.data.prompts import PromptSet, right_prompts
from engine.data.templates import apply_template
from engine.data.tokenizer import Tokenizer, tokenizer_digest
from engine.data.user_cache import cache_folder, forget_unused
from engine.errors import RunError

_FORMAT = 1
"""Changes when the same inputs would give other ids, or another file."""
_AT_ONCE = 4096  # prompts that are tokenized together, on several threads
_PROGRESS_SECONDS = 2.0
_NAMED = 20  # prompts that an error names

Say = Callable[[str], None]


class PromptTokens:
    """Token ids of each prompt of a file, in its order, template included.

    Attributes:
        starts: where each prompt begins in ``ids``, and where the last one ends; 64 bits each.
        ids: of all prompts, end to end; 32 bits each.
    """

    def __init__(
        self, starts: array[int] | memoryview[int], ids: array[int] | memoryview[int]
    ) -> None:
        self.starts, self.ids = starts, ids

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> list[int]:
        return list(self.ids[self.starts[index] : self.starts[index + 1]])

    @property
    def lengths(self) -> list[int]:
        """Number of ids of each prompt."""
        return [end - start for start, end in zip(self.starts, self.starts[1:], strict=False)]


class UntokenizableError(RunError):
    """Prompts that the tokenizer has no ids for.

    Attributes:
        problems: index of each in its file, and why; not more than a message can name.
    """

    def __init__(self, path: Path, problems: Sequence[tuple[int, str]]) -> None:
        super().__init__(f"{path}: {problems[0][1]}")
        self.problems = tuple(problems)


class TokenizedPrompts:
    """A prompt set, and the ids of its prompts.

    Attributes:
        set: says which prompts are asked when.
    """

    def __init__(self, prompts: PromptSet, file: PromptFile, tokens: PromptTokens) -> None:
        self.set = prompts
        self._tokens = tokens
        self._index = {prompt.id: index for index, prompt in enumerate(file.prompts)}

    @classmethod
    def load(
        cls, path: Path, model: Path, template: str, tokenizer: Tokenizer, *, seed: int, say: Say
    ) -> TokenizedPrompts:
        """Read ``path``; arguments as of :func:`prompt_tokens` and :class:`PromptSet`.

        Raises:
            RunError: a line is wrong, or the tokenizer has no token for a word of a prompt.
        """
        file = read_prompt_file(path)
        prompts = PromptSet(right_prompts(file), seed=seed, name=str(path))
        return cls(prompts, file, prompt_tokens(file, model, template, lambda: tokenizer, say))

    def tokens(self, prompt: Prompt) -> list[int]:
        """Return the ids of one of the set's prompts, template included."""
        return self._tokens[self._index[prompt.id]]


def prompt_tokens(
    file: PromptFile, model: Path, template: str, tokenizer: Callable[[], Tokenizer], say: Say
) -> PromptTokens:
    """Return the ids of the prompts of ``file``, from the cache where it has them.

    Args:
        model: a Hugging Face folder.
        template: one of ``engine.data.templates``.
        tokenizer: gives that of ``model``; not called where the cache has the ids.
        say: told how far it is, where that takes long.

    Raises:
        UntokenizableError: the tokenizer has no token for a word of some prompts.
        RunError: a file of the model's folder cannot be read.
    """
    parts = [str(_FORMAT), file.digest, tokenizer_digest(model), apply_template(template, "{}")]
    folder = cache_folder("prompts")
    place = folder / f"{blake3('|'.join(parts).encode()).hexdigest()[:32]}.ids" if folder else None
    found = _read(place, len(file.prompts)) if place else None
    if found is None:
        found = _tokenize(file, template, tokenizer(), say)
        if place:
            _write(place, found)
    return found


def _tokenize(file: PromptFile, template: str, tokenizer: Tokenizer, say: Say) -> PromptTokens:
    lengths, ids, problems = [0], array("I"), list[tuple[int, str]]()
    last, many = time.monotonic(), len(file.prompts)
    for first in range(0, many, _AT_ONCE):
        if (now := time.monotonic()) - last > _PROGRESS_SECONDS:
            say(f"{file.path}: {first:,} of {many:,} prompts are tokenized")
            last = now
        prompts = file.prompts[first : first + _AT_ONCE]
        texts = [apply_template(template, prompt.prompt) for prompt in prompts]
        for one in tokenizer.encode_each(texts):
            if isinstance(one, RunError):
                problems.append((len(lengths) - 1, str(one)))
                one = []
            lengths.append(len(one))
            ids.extend(one)
        if len(problems) >= _NAMED:
            break
    if problems:
        raise UntokenizableError(file.path, problems[:_NAMED])
    return PromptTokens(array("Q", accumulate(lengths)), ids)


def _read(place: Path, many: int) -> PromptTokens | None:
    """Return what is cached for ``many`` prompts; None if nothing is, or not that."""
    try:
        content = memoryview(place.read_bytes())
        os.utime(place)
    except OSError:
        return None
    split = 8 * (many + 1)
    if sys.byteorder != "little" or len(content) < split or (len(content) - split) % 4:
        return None
    starts, ids = content[:split].cast("Q"), content[split:].cast("I")
    return PromptTokens(starts, ids) if starts[-1] == len(ids) else None


def _write(place: Path, tokens: PromptTokens) -> None:
    """Keep ``tokens`` for the next one who asks, if that is possible; forget what is old."""
    part = place.with_name(f"{place.name}.{os.getpid()}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as opened:
            opened.write(memoryview(tokens.starts))
            opened.write(memoryview(tokens.ids))
        part.replace(place)
        forget_unused(place.parent)
    except OSError:
        with suppress(OSError):
            part.unlink(missing_ok=True)
