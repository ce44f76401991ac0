"""The 48 words of the task, one token each, and its tokenizer as a Hugging Face folder holds it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from engine.errors import RunError
from engine.platform.files import replace_bytes, replace_json, replace_text
from recipes.chain_task.problems import LABELS

if TYPE_CHECKING:
    from engine.weights.hugging_face import HuggingFaceFolder

PAD, EOS, BOS = "<pad>", "<eos>", "<bos>"
DIGITS = "0123456789"


@dataclass(frozen=True, slots=True)
class Language:
    """The words of one language for a solution: ``start 3 ; a plus 4 is 7 ; ... so 7``."""

    start: str
    operation: Mapping[str, str]  # by symbol
    equals: str
    so: str
    wait: str

    @property
    def words(self) -> tuple[str, ...]:
        """All words that belong to this language and to no other."""
        return (*self.operation.values(), self.equals, self.start, self.so, self.wait)


ENGLISH = Language("start", {"+": "plus", "-": "minus", "*": "times"}, "is", "so", "wait")
CHINESE = Language("始", {"+": "加", "-": "减", "*": "乘"}, "得", "故", "等")
LANGUAGES = (ENGLISH, CHINESE)

WORDS = (
    *(PAD, EOS, BOS, "<think>", "</think>", "<answer>", "</answer>", *"+-*=?;"),
    *(*ENGLISH.words, *CHINESE.words, *DIGITS, *LABELS),
)
TOKEN_OF = {word: token for token, word in enumerate(WORDS)}
PAD_ID, EOS_ID, BOS_ID = TOKEN_OF[PAD], TOKEN_OF[EOS], TOKEN_OF[BOS]


def encode(words: Iterable[str]) -> list[int]:
    """Return the token ids of words of the vocabulary; KeyError for any other."""
    return [TOKEN_OF[word] for word in words]


def model_source(config: Path, run_dir: Path) -> HuggingFaceFolder:
    """Return the folder whose config and tokenizer the base is exported with; rank 0 writes it.

    Raises:
        RunError: the architecture has another vocabulary than the task.
    """
    import torch.distributed as dist

    from engine.weights.hugging_face import HuggingFaceFolder

    folder = run_dir / "architecture"
    if dist.get_rank() == 0:
        replace_bytes(folder / "config.json", config.read_bytes())
        write_tokenizer(folder)
    dist.barrier()
    source = HuggingFaceFolder(folder)
    if source.config["vocab_size"] != len(WORDS):
        raise RunError(
            f"model: {config} has vocab_size {source.config['vocab_size']}; the chain task has "
            f"{len(WORDS)} words"
        )
    return source


def write_tokenizer(folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json into a model folder (created if need be).

    Words are separated by whitespace and come back joined by one space each; a word outside the
    vocabulary is an error. The tags of the template are ordinary words, so that decoding keeps them
    whatever it does with special tokens.
    """
    tokenizer = Tokenizer(WordLevel(dict(TOKEN_OF)))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_special_tokens([PAD, EOS, BOS])
    replace_text(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "eos_token": EOS,
        "bos_token": BOS,
        "clean_up_tokenization_spaces": False,
    }
    replace_json(folder / "tokenizer_config.json", config)
