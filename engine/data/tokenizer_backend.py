"""Build the tokenizer that a Hugging Face folder means, not tokenizer.json alone.

The pipeline (normalizer, pre-tokenizer, model, decoder) is that of tokenizer.json. What stands
around a prompt and which special tokens are found in it is decided as transformers 5 and SGLang
decide it together; each function says how.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import tokenizers
from tokenizers.processors import TemplateProcessing

from engine.data.tokenizer_settings import TokenizerSettings
from engine.errors import RunError
from engine.platform.git_lfs import POINTER_REMARK, is_pointer


def read_backend(
    path: Path, settings: TokenizerSettings, vocabulary_size: int
) -> tuple[tokenizers.Tokenizer, list[str]]:
    """Return the tokenizer of ``path`` (tokenizer.json) with ``settings``, and what to say of it.

    Raises:
        RunError: the file is missing or malformed, or knows an id beyond the model's vocabulary.
    """
    if not path.is_file():
        raise RunError(f"{path}: not found; the tokenizer is read from this file alone")
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        why = POINTER_REMARK if is_pointer(path) else error
        raise RunError(f"{path}: not a tokenizer of the tokenizers library ({why})") from error
    _check_ids(backend, path, vocabulary_size)
    says = [
        *_whole_and_alone(backend),
        *_know_tokens(backend, settings, vocabulary_size),
        *_split_special_tokens(backend, settings),
        *_begin_with_bos(backend, settings),
        *_other_first_space(backend, settings),
    ]
    return backend, says


def _check_ids(backend: tokenizers.Tokenizer, path: Path, vocabulary_size: int) -> None:
    vocabulary = backend.get_vocab(with_added_tokens=True)
    beyond = {text: number for text, number in vocabulary.items() if number >= vocabulary_size}
    if not beyond:
        return
    text, largest = max(beyond.items(), key=lambda one: one[1])
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    way_out = ": take them out of its added_tokens, the model has not learned them"
    raise RunError(
        f"{path.parent}: tokenizer.json has token id {largest} ({text[:40]!r}; {len(beyond)} such),"
        f" but vocab_size in config.json is {vocabulary_size}"
        f"{way_out if beyond.keys() <= added else ''}"
    )


def around(backend: tokenizers.Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids that the tokenizer puts in front of every text, and behind it."""
    for text in _probes(backend):
        try:
            encoded = backend.encode(text)
        except Exception:  # a word model that knows no such word; the next one
            continue
        mask = encoded.special_tokens_mask
        if 0 in mask:  # 1 is what the tokenizer adds itself
            first, behind = mask.index(0), len(mask) - mask[::-1].index(0)
            return tuple(encoded.ids[:first]), tuple(encoded.ids[behind:])
    return (), ()


def _probes(backend: tokenizers.Tokenizer) -> Iterator[str]:
    """Yield texts, one of which any tokenizer can read."""
    yield from (token.content for token in backend.get_added_tokens_decoder().values())
    yield from backend.get_vocab(with_added_tokens=False)


def _whole_and_alone(backend: tokenizers.Tokenizer) -> Iterator[str]:
    """Switch off truncation and padding, as transformers does where nobody asks for them.

    And BPE's dropout, which would read the same text as other tokens each time.
    """
    if backend.truncation is not None:
        length = backend.truncation["max_length"]
        yield f"truncation to {length} tokens that tokenizer.json asks for is switched off"
        backend.no_truncation()
    if backend.padding is not None:
        yield "padding that tokenizer.json asks for is switched off"
        backend.no_padding()
    if dropout := getattr(backend.model, "dropout", None):
        yield f"dropout {dropout:g} that tokenizer.json asks for is switched off"
        backend.model.dropout = None


def _know_tokens(
    backend: tokenizers.Tokenizer, settings: TokenizerSettings, vocabulary_size: int
) -> Iterator[str]:
    """Make the special tokens of the settings tokens of their own, as transformers does.

    transformers gives those that tokenizer.json lacks the next free ids. That is left out beyond
    the model's vocabulary, and for bos and eos: no model has learned to begin or end with such.
    """
    known = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    ends = {settings.named.get("bos_token"), settings.named.get("eos_token")}
    # A numbered token says how it is found in a text even of one that is known, others do not.
    numbered = [one for one in settings.numbered if repr(one) != repr(known.get(one.content))]
    for token in (*numbered, *settings.special):
        if token.content in known and not any(token is one for one in numbered):
            continue
        if backend.token_to_id(token.content) is None:
            free = backend.get_vocab_size(with_added_tokens=True)
            lacks = f"tokenizer.json lacks {token.content!r}, which a file beside it names"
            if free >= vocabulary_size or token.content in ends:
                yield f"{lacks}; it is left out"
                continue
            yield f"{lacks}; it becomes token {free}, as in transformers"
        backend.add_tokens([token])
        known[token.content] = token


def _split_special_tokens(
    backend: tokenizers.Tokenizer, settings: TokenizerSettings
) -> Iterator[str]:
    """Read special tokens that stand in a text as plain text, where the settings say so."""
    if settings.split_special_tokens:
        yield "special tokens that stand in a text are read as text (split_special_tokens is true)"
        backend.encode_special_tokens = True


def _begin_with_bos(backend: tokenizers.Tokenizer, settings: TokenizerSettings) -> Iterator[str]:
    """Put bos in front of a prompt where the settings decide it and not tokenizer.json.

    SGLang's rule: a class that knows ``add_bos_token`` has bos put in front unless it is false,
    whatever tokenizer.json does. transformers 5 alone does what tokenizer.json does; version 4,
    with which these folders were made, did as SGLang does.
    """
    before = around(backend)
    bos = settings.named.get("bos_token")
    bos_id = None if bos is None else backend.token_to_id(bos)
    if settings.knows_flags and settings.add_bos_token is not False:
        template = ["$A:0"] if bos_id is None else [f"{bos}:0", "$A:0"]
        special = [] if bos_id is None else [(bos, bos_id)]
        backend.post_processor = TemplateProcessing(single=template, special_tokens=special)
    front, behind = around(backend)
    flag = str(settings.add_bos_token).lower()
    if (front, behind) != before:
        given = f"add_bos_token is {flag}" if settings.add_bos_token else "by default"
        yield (
            f"a prompt begins with {_texts(backend, front)} ({settings.tokenizer_class} of"
            f" tokenizer_config.json, {given}); tokenizer.json alone would put"
            f" {_texts(backend, before[0])} in front and {_texts(backend, before[1])} behind"
        )
    elif settings.add_bos_token is not None and settings.add_bos_token != (bos_id in front):
        yield (
            f"a prompt begins with {_texts(backend, front)} although add_bos_token of"
            f" tokenizer_config.json is {flag}: so do tokenizer.json, transformers and SGLang"
        )
    if behind:
        yield f"tokenizer.json puts {_texts(backend, behind)} behind every prompt"
    elif settings.add_eos_token:
        yield "a prompt ends without eos although add_eos_token of tokenizer_config.json is true"


def _other_first_space(backend: tokenizers.Tokenizer, settings: TokenizerSettings) -> Iterator[str]:
    """Say where tokenizer.json, which counts, treats a text's beginning otherwise than settings.

    transformers and SGLang follow it as well, but for classes that they build anew.
    """
    if settings.add_prefix_space is None:
        return
    try:
        plain, spaced = (backend.encode(text, add_special_tokens=False) for text in ("a", " a"))
    except Exception:  # a word model that knows no such word
        return
    if "a" not in backend.decode(plain.ids):
        return
    adds = plain.ids == spaced.ids or plain.tokens[0].startswith("▁")
    if adds != settings.add_prefix_space:
        flag = str(settings.add_prefix_space).lower()
        yield (
            f"a text is read as if {'a' if adds else 'no'} space stood before it, as tokenizer.json"
            f" says, although add_prefix_space of tokenizer_config.json is {flag}"
        )


def _texts(backend: tokenizers.Tokenizer, ids: tuple[int, ...]) -> str:
    return " ".join(f"{backend.id_to_token(one)} ({one})" for one in ids) or "nothing"
