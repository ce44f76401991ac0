r"""Language reward: share of the chain of thought that is written in the target language.

DeepSeek-R1 (arXiv 2501.12948 v2, "Language consistency reward"), against mixed languages:
``reward = words of the target language / all words``, over the words of the chain of thought, added
to the other rewards. All prompts of a run share one target language, ``target``: whoever trains on
prompts in several languages needs a reward that knows each prompt's.

What a word is, as far as the paper leaves it open:

- A maximal run of letters, apostrophes inside it included. Scripts without spaces between words
  (Han, kana, Thai, ...) have a word for each letter; where a vocabulary is given, they are cut into
  its longest words, and each letter that belongs to none of them is a word of another language.
- Digits, words with digits in them, letters of no script (Unicode's Common: ``ℵ``), punctuation
  and labels (a single letter of an alphabet: ``x``, ``б``, but also the words ``a`` and ``I``)
  count for neither side.
- Nor does code between backquotes, one or three, nor what stands in ``$...$``, ``$$...$$``,
  ``\(...\)`` or ``\[...\]``, words inside included. A mark that is never closed, or not on its line
  (one backquote, ``$``), is punctuation.
- Elsewhere LaTeX commands (``\`` and ASCII letters) and the tags of :data:`_TAG` are skipped. What
  else nobody has marked as notation is words: names in bare code and addresses, arguments of
  commands (``\text{so}``), names of environments, tags such as ``<b>`` or ``<table>``.
- By script, a word belongs to the target language if all its letters are of the language's scripts.
  That cannot tell English from French or Chinese from Japanese kanji: with a vocabulary (``words``)
  a word belongs to the target language if, and only if, it is listed. Case is ignored.
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Protocol
from unicodedata import normalize

import regex
from pydantic import Field, ValidationInfo, field_validator

from engine.config.inputs import inputs_wanted
from engine.errors import RunError
from engine.rewards.reward import Answer, Reward
from engine.rewards.score import Score, graded

_LANGUAGES = {  # by script, as ISO 639-1 codes; a language may be written in several
    "Latin": "af az bs ca cs cy da de en eo es et eu fi fr ga gl ha hr hu id ig is it la lb lt lv"
    " mi ms mt nb nl nn no pl pt ro rw sk sl so sq sr sv sw tl tn tr uz vi wo xh yo zu",
    "Cyrillic": "be bg kk ky mk mn ru sr tg tt uk",
    "Arabic": "ar fa ku ps sd ug ur",
    "Han": "ja zh",
    "Hiragana": "ja",
    "Katakana": "ja",
    "Bopomofo": "zh",
    "Hangul": "ko",
    "Greek": "el",
    "Hebrew": "he yi",
    "Armenian": "hy",
    "Georgian": "ka",
    "Ethiopic": "am ti",
    "Devanagari": "hi mr ne sa",
    "Bengali": "as bn",
    "Gurmukhi": "pa",
    "Gujarati": "gu",
    "Oriya": "or",
    "Tamil": "ta",
    "Telugu": "te",
    "Kannada": "kn",
    "Malayalam": "ml",
    "Sinhala": "si",
    "Thai": "th",
    "Lao": "lo",
    "Khmer": "km",
    "Myanmar": "my",
    "Tibetan": "bo",
}
_WITHOUT_SPACES = ("Han", "Hiragana", "Katakana", "Bopomofo", "Thai", "Lao", "Khmer", "Myanmar")


def _letters(scripts: tuple[str, ...]) -> str:
    """Return the set, in regex's syntax, of all letters and marks of these scripts."""
    members = "".join(f"\\p{{scx={script}}}" for script in scripts)
    return rf"[[{members}]&&[\p{{L}}\p{{M}}]]"


_DENSE = _letters(_WITHOUT_SPACES)
_TAG = r"</?(?:think|answer)>|<(?:bos|eos|pad|unk)>|<[|｜][A-Za-z0-9_▁]+[|｜]>"
"""Tags of the answer and special tokens, such as ``<|im_end|>`` and ``<｜end▁of▁sentence｜>``."""
_NOTATION = regex.compile(  # possessive, and never past another mark: linear time
    r"```(?:[^`]++|`(?!``))*+```"
    r"|(?<!`)`[^`\n]++`(?!`)"
    r"|(?<!\\)\$\$(?:[^$]++|\$(?!\$))*+\$\$"
    r"|(?<!\\)\$(?=[^\s$])(?:[^$\\\n]++|\\.)*+(?<!\s)\$(?!\d)"  # "$5 or $6" is none
    r"|(?<!\\)\\\((?:[^\\]++|\\[^()])*+\\\)"
    r"|(?<!\\)\\\[(?:[^\\]++|\\[^\[\]])*+\\\]",
    regex.V1,
)
_TOKEN = regex.compile(
    rf"\\[A-Za-z]+|{_TAG}"  # LaTeX commands and tags: skipped, they are in no group
    rf"|(?P<run>{_DENSE}+)"
    rf"|(?P<word>[[\p{{L}}\p{{M}}\p{{N}}]--{_DENSE}](?:['’]?[[\p{{L}}\p{{M}}\p{{N}}]--{_DENSE}])*)",
    regex.V1,
)
_OF_NO_LANGUAGE = regex.compile(
    r".*\p{N}.*|[\p{Lu}\p{Ll}\p{Lt}\p{Arabic}\p{Hebrew}]\p{M}*"
    r"|[\p{scx=Common}\p{scx=Inherited}'’]+",
    regex.V1,
)
_LETTER = regex.compile(r"\p{L}")


class LanguageReward(Reward):
    """Which share of the words of the chain of thought is of the target language?"""

    target: str = Field(min_length=2, description="language code of the chain of thought: en, zh")
    scripts: tuple[str, ...] | None = Field(
        None, description="Unicode scripts of the target language; null: known from its code"
    )
    words: Path | tuple[str, ...] | None = Field(
        None,
        description="words of the target language, a list or a UTF-8 file with one a line: needed "
        "against languages of the same script; null: the script alone decides",
    )

    @field_validator("scripts")
    @classmethod
    def _are_known(cls, scripts: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for script in scripts or ():
            try:
                regex.compile(_letters((script,)), regex.V1)
            except regex.error:
                raise ValueError(
                    f"expected names of Unicode scripts such as Latin or Han, found {script!r}"
                ) from None
        return scripts

    @field_validator("words")
    @classmethod
    def _tell_the_language(
        cls, words: Path | tuple[str, ...] | None, info: ValidationInfo
    ) -> Path | tuple[str, ...] | None:
        if words == ():
            raise ValueError("expected at least one word, or null, found an empty list")
        target, scripts = info.data.get("target"), info.data.get("scripts", "unsound")
        if not (words or target is None or scripts or scripts_of(target)):
            raise ValueError(
                f"expected words or scripts of the target language: those of {target!r} are unknown"
            )
        if isinstance(words, Path) and inputs_wanted(info):
            try:
                _read(words)
            except RunError as error:
                raise ValueError(str(error)) from None
        return words

    async def score(self, answer: Answer) -> Score:
        """Return the share of words of the target language, between 0 and 1, as a graded verdict.

        Without any words the share is 0, and graded like every other, never ``unparsable``: the
        verdicts of a run show that this reward grades even where no answer has words. Time is
        linear in the length, for a given vocabulary.

        Raises RunError if the file with words cannot be read.
        """
        return graded(language_share(chain_of_thought(answer.response), self._language))

    @cached_property
    def _language(self) -> Language:
        if self.words is not None:
            words = _read(self.words) if isinstance(self.words, Path) else self.words
            return Vocabulary(words)
        return Scripts(self.scripts or scripts_of(self.target))


REWARD = LanguageReward


class Language(Protocol):
    """What tells words of one language from all others."""

    def has(self, word: str) -> bool:
        """Return whether a word of a script with spaces between words is of the language."""
        ...

    def count(self, run: str) -> tuple[int, int]:
        """Return how many words of the language, and how many of any, are in ``run``.

        ``run`` is an unbroken sequence of letters and marks of scripts without spaces.
        """
        ...


class Scripts:
    """A language known by the scripts that it is written in."""

    def __init__(self, scripts: tuple[str, ...]) -> None:
        letters = _letters(scripts)
        self._word = regex.compile(rf"(?:{letters}|[\p{{M}}'’])+", regex.V1)
        self._letter = regex.compile(rf"[{letters}&&\p{{L}}]", regex.V1)

    def has(self, word: str) -> bool:
        """Return whether all letters are of the language's scripts."""
        return self._word.fullmatch(word) is not None

    def count(self, run: str) -> tuple[int, int]:
        """Count each letter as a word."""
        return len(self._letter.findall(run)), len(_LETTER.findall(run))


class Vocabulary:
    """A language known by its words."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self._words = frozenset(map(_folded, words))
        self._longest = max(map(len, self._words))

    def has(self, word: str) -> bool:
        """Return whether the word is listed, or all words that its apostrophes divide it into."""
        folded = _folded(word)
        if folded in self._words:
            return True
        parts = [part for part in folded.split("'") if not _OF_NO_LANGUAGE.fullmatch(part)]
        return "'" in folded and bool(parts) and self._words.issuperset(parts)

    def count(self, run: str) -> tuple[int, int]:
        """Cut off the longest listed word again and again; a letter that begins none is a word."""
        run = _folded(run)
        ours = others = place = 0
        while place < len(run):
            longest = min(self._longest, len(run) - place)
            lengths = (n for n in range(longest, 0, -1) if run[place : place + n] in self._words)
            if length := next(lengths, 0):
                ours += 1
            elif _LETTER.match(run, place):
                others += 1
            place += length or 1
        return ours, ours + others


def scripts_of(language: str) -> tuple[str, ...]:
    """Return the scripts of a language by its code (``zh``, ``pt-BR``), () if it is not known."""
    code = language.lower().partition("-")[0]
    return tuple(script for script, codes in _LANGUAGES.items() if code in codes.split())


def chain_of_thought(response: str) -> str:
    """Return what stands between ``<think>`` and ``</think>``, of all pairs if there are several.

    A ``</think>`` without ``<think>`` before it ends what a template has opened in the prompt:
    the response up to it is the first pair. The whole response if there is no pair.
    """
    thoughts = []
    end = 0
    before, closed, _ = response.partition("</think>")
    if closed and "<think>" not in before:
        thoughts.append(before)
        end = len(before)
    while (start := response.find("<think>", end)) >= 0:
        start += len("<think>")
        end = response.find("</think>", start)
        if end < 0:
            break
        thoughts.append(response[start:end])
    return "\n".join(thoughts) if thoughts else response


def language_share(text: str, language: Language) -> float:
    """Return the share of the words of ``text`` that are of the language, 0 without words."""
    ours = words = 0
    prose = _NOTATION.sub(" ", normalize("NFC", text))
    for chunk, times in Counter(prose.split()).items():  # most words recur
        for token in _TOKEN.finditer(chunk):
            if run := token["run"]:
                counted = language.count(run)
            elif (word := token["word"]) and not _OF_NO_LANGUAGE.fullmatch(word):
                counted = (int(language.has(word)), 1)
            else:
                continue
            ours += times * counted[0]
            words += times * counted[1]
    return ours / words if words else 0.0


def _folded(text: str) -> str:
    """Return ``text`` in the one form in which words are compared."""
    return normalize("NFC", text).casefold().replace("’", "'")


def _read(file: Path) -> tuple[str, ...]:
    """Return the words of a file; RunError if it cannot be read or has none."""
    try:
        words = tuple(file.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(
            f"cannot read the words of the language reward from {file}: {error}"
        ) from None
    if not words:
        raise RunError(f"{file}: expected words of the target language, found none")
    return words
