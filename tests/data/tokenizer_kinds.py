"""Small tokenizers built the way published ones are, with the files that lie beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Digits, Split
from tokenizers.trainers import BpeTrainer

CORPUS = [
    "The quick brown fox jumps over the lazy dog; it doesn't stop, we'll see.",
    "Let x = 12345.678 and y = 3/4. Then x + y = 12346.428, isn't it?",
    "def add(a, b):\n    return a + b\n\n\n# three   spaces\r\n\tand a tab",
    "答案是四十二。ひらがな と カタカナ、한국어도 있습니다。",
    "Naïve façade, Ærøskøbing, Москва, Ελλάδα.",
    "<think>\nWe compute 7 * 6 = 42.\n</think>\n\n<answer>42</answer>",
]
TEXTS = [
    *CORPUS,
    "",
    " ",
    "  in front",
    "a",
    "\n\n",
    "two words",
    "ends in spaces   ",
    "100000000 1234567890 12 3",
    "e\u0301 is é in two code points; ﬁ, ½, Å",
    "emoji 🙂 and 👩‍💻, rare 𐍈 and ﷽",
    "\u00a0no-break\u2003em space\u200b",
    "WE'LL CAN'T 'twas",
    "so  ! it <|im_start|>  begins",
    "{}[]()$^_\\frac{1}{2}\\boxed{x}",
]
IN_FRONT = frozenset({" ", "  in front"})
DECOMPOSED = frozenset({"e\u0301 is é in two code points; ﬁ, ½, Å"})

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}"
_LLAMA_3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"
_DEEPSEEK_WORDS = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _isolated(*patterns: str) -> list[Split]:
    return [Split(Regex(pattern), behavior="isolated") for pattern in patterns]


def _bytes() -> ByteLevel:
    return ByteLevel(add_prefix_space=False, use_regex=False)


def byte_level(special: Sequence[str], pre: Sequence[Any], **model: Any) -> Tokenizer:
    """Byte pairs behind the pre-tokenizers ``pre``; ``special`` have the last ids."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*pre, _bytes()])
    alphabet = ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in learned["merges"]]
    tokenizer.model = BPE(learned["vocab"], merges, **model)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def sentence_pieces(special: Sequence[str]) -> Tokenizer:
    """Byte pairs of characters, with bytes for what is unknown; ``special`` have the first ids."""
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    trainer = BpeTrainer(vocab_size=200, show_progress=False, limit_alphabet=60)
    tokenizer.train_from_iterator(CORPUS, trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    words = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *learned["vocab"]]
    vocabulary = {word: number for number, word in enumerate(words)}
    merges = [tuple(merge) for merge in learned["merges"]]
    tokenizer.model = BPE(
        vocabulary, merges, byte_fallback=True, fuse_unk=True, unk_token=special[0]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def _in_front(tokenizer: Tokenizer, bos: str) -> Tokenizer:
    """Put ``bos`` in front of every text, as a file of Llama 3 or Mixtral does."""
    token = (bos, tokenizer.token_to_id(bos))
    template = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[token])
    before = tokenizer.post_processor
    tokenizer.post_processor = processors.Sequence([before, template]) if before else template
    return tokenizer


def _qwen() -> Tokenizer:
    tokenizer = byte_level(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], _isolated(_QWEN), fuse_unk=False
    )
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer


_R1 = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"]


def _distilled_qwen() -> Tokenizer:
    tokenizer = byte_level(_R1, _isolated(_QWEN), fuse_unk=False)
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def _deepseek_v2() -> Tokenizer:
    splits = _isolated(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+")
    return byte_level(_R1, [*splits, Digits(individual_digits=True)])


def _deepseek_v3() -> Tokenizer:
    return byte_level(_R1, _isolated(r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+", _DEEPSEEK_WORDS))


_LLAMA_TOKENS = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
_GLM_TOKENS = ["<|endoftext|>", "[gMASK]", "<sop>", "<|user|>", "<|observation|>"]


def _added(token: str) -> dict[str, Any]:
    return {"__type": "AddedToken", "content": token, "normalized": True, "lstrip": False}


_DEEPSEEK_SETTINGS = {
    "tokenizer_class": "LlamaTokenizerFast",
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": _added(_R1[0]),
    "eos_token": _added(_R1[1]),
    "pad_token": _added(_R1[1]),
    "unk_token": None,
    "legacy": True,
    "sp_model_kwargs": {},
}
_QWEN_SETTINGS = {
    "tokenizer_class": "Qwen2Tokenizer",
    "add_bos_token": False,
    "bos_token": None,
    "eos_token": "<|im_end|>",
    "pad_token": "<|endoftext|>",
    "unk_token": None,
    "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
    "errors": "replace",
    "split_special_tokens": False,
}


@dataclass(frozen=True)
class Kind:
    """One published kind.

    Attributes:
        model_type: of config.json.
        build: makes tokenizer.json's tokenizer.
        settings: tokenizer_config.json.
        bos: what a prompt begins with, None where with nothing.
        eos: what ends a response, the main one first; config.json has them in the other order.
        transformers: how transformers 5 reads the folder: ``equal``; ``no bos``: equal but for bos,
            as it does not read add_bos_token; ``other``: it puts another pre-tokenizer in, as
            its LlamaTokenizer is one of sentence pieces.
        server_differs: texts that SGLang's own tokenizer reads in another way, because it goes by
            the class and drops the normalizer of tokenizer.json; here the file counts.
    """

    model_type: str
    build: Callable[[], Tokenizer]
    settings: dict[str, Any] = field(repr=False)
    bos: str | None
    eos: tuple[str, ...]
    transformers: str = "equal"
    server_differs: frozenset[str] = frozenset()

    def write(self, folder: Path) -> Path:
        """Write a folder without weights."""
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer = self.build()
        tokenizer.save(str(folder / "tokenizer.json"))
        eos = [tokenizer.token_to_id(token) for token in self.eos]
        config = {
            "model_type": self.model_type,
            "vocab_size": 512,
            "eos_token_id": eos[0] if len(eos) == 1 else eos[::-1],
        }
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "tokenizer_config.json").write_text(json.dumps(self.settings))
        return folder


KINDS = {
    "deepseek_v3": Kind(
        "deepseek_v3", _deepseek_v3, _DEEPSEEK_SETTINGS, _R1[0], (_R1[1],), "no bos"
    ),
    "deepseek_v2": Kind(
        "deepseek_v2", _deepseek_v2, _DEEPSEEK_SETTINGS, _R1[0], (_R1[1],), "no bos"
    ),
    "qwen3_moe": Kind("qwen3_moe", _qwen, _QWEN_SETTINGS, None, ("<|im_end|>", "<|endoftext|>")),
    "qwen3": Kind("qwen3", _qwen, _QWEN_SETTINGS, None, ("<|im_end|>", "<|endoftext|>")),
    "qwen2": Kind("qwen2", _qwen, _QWEN_SETTINGS, None, ("<|im_end|>", "<|endoftext|>")),
    "llama_3": Kind(
        "llama",
        lambda: _in_front(
            byte_level(_LLAMA_TOKENS, _isolated(_LLAMA_3), ignore_merges=True), _LLAMA_TOKENS[0]
        ),
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": _LLAMA_TOKENS[0],
            "eos_token": _LLAMA_TOKENS[2],
            "model_input_names": ["input_ids", "attention_mask"],
        },
        _LLAMA_TOKENS[0],
        (_LLAMA_TOKENS[2], _LLAMA_TOKENS[1]),
    ),
    "glm4_moe": Kind(
        "glm4_moe",
        lambda: byte_level(_GLM_TOKENS, _isolated(_LLAMA_3)),
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
            "additional_special_tokens": _GLM_TOKENS,
            "padding_side": "left",
            "do_lower_case": False,
        },
        None,
        ("<|endoftext|>", "<|observation|>", "<|user|>"),
    ),
    "mixtral": Kind(
        "mixtral",
        lambda: _in_front(sentence_pieces(["<unk>", "<s>", "</s>"]), "<s>"),
        {
            "tokenizer_class": "LlamaTokenizer",
            "add_bos_token": True,
            "add_eos_token": False,
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "legacy": True,
        },
        "<s>",
        ("</s>",),
        server_differs=IN_FRONT,
    ),
    "distilled_qwen": Kind(
        "qwen2", _distilled_qwen, _DEEPSEEK_SETTINGS, _R1[0], (_R1[1],), "no bos"
    ),
    "distilled_qwen3": Kind(
        "qwen3", _distilled_qwen, _DEEPSEEK_SETTINGS, _R1[0], (_R1[1],), "other", DECOMPOSED
    ),
    "distilled_llama": Kind(
        "llama",
        lambda: _in_front(byte_level(_R1, _isolated(_LLAMA_3), ignore_merges=True), _R1[0]),
        _DEEPSEEK_SETTINGS,
        _R1[0],
        (_R1[1],),
        "other",
    ),
}
"""The tokenizers of the eight families and of DeepSeek-R1's distilled models."""
