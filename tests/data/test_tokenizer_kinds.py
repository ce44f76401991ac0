"""Token ids and ending tokens of tokenizers that people have, against transformers and SGLang."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizer_kinds import KINDS, TEXTS
from tokenizers import processors

from engine.data.chat_template import ChatTemplate
from engine.data.tokenizer import Tokenizer

PROGRAM = Path(__file__).with_name("reference_tokenizers.py")
LLAMA = {"tokenizer_class": "LlamaTokenizerFast", "bos_token": "<|im_start|>", "unk_token": None}
FAST = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|im_start|>"}
EOS = {"eos_token": "<|im_end|>"}
BOS_WITH_SPACE = {"401": {"content": "<|im_start|>", "special": True, "rstrip": True}}
NAMED_LATER = {"1": {"content": "!", "special": False, "lstrip": True, "rstrip": False}}

SETTINGS: dict[str, dict[str, Any]] = {
    "bos by default": {**LLAMA, **EOS},
    "bos by null": {**LLAMA, **EOS, "add_bos_token": None},
    "no bos": {**LLAMA, **EOS, "add_bos_token": False},
    "bos and eos": {**LLAMA, **EOS, "add_bos_token": True, "add_eos_token": True},
    "bos without a name": {**LLAMA, **EOS, "bos_token": None, "add_bos_token": True},
    "flag of another class": {**FAST, **EOS, "add_bos_token": True},
    "a pad of its own": {**FAST, **EOS, "pad_token": "[PAD]"},
    "an eos of its own": {**FAST, "eos_token": "</s>"},
    "other flags of a token": {**FAST, **EOS, "added_tokens_decoder": NAMED_LATER},
    "other flags of bos": {**FAST, **EOS, "added_tokens_decoder": BOS_WITH_SPACE},
    "an extra token": {
        **FAST,
        **EOS,
        "additional_special_tokens": ["quick", {"__type": "AddedToken", "content": "fox"}],
    },
    "special tokens as text": {**FAST, **EOS, "split_special_tokens": True},
    "tokens of added_tokens.json": {**FAST, **EOS, "pad_token": "lazy"},
}
"""tokenizer_config.json by what is unusual in it."""
PROCESSORS = {
    "nothing": None,
    "bos": ("<|im_start|> $A",),
    "eos": ("$A <|im_end|>",),
    "both": ("<|im_start|> $A <|im_end|>",),
}
"""What tokenizer.json puts around a text."""


def unusual_folder(folder: Path, settings: dict[str, Any], around: tuple[str] | None) -> Path:
    """A folder of Qwen3's kind with other settings; truncation and padding are saved in it."""
    KINDS["qwen3"].write(folder)
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.normalizer = None  # SGLang would drop it for some classes
    backend.enable_truncation(4)
    backend.enable_padding(length=6, pad_id=400, pad_token="<|endoftext|>")
    if around:
        special = [(token, backend.token_to_id(token)) for token in ("<|im_start|>", "<|im_end|>")]
        backend.post_processor = processors.TemplateProcessing(*around, special_tokens=special)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if settings == SETTINGS["tokens of added_tokens.json"]:
        numbers = {"lazy": 404, "over": 403, "<|im_end|>": 402}
        (folder / "added_tokens.json").write_text(json.dumps(numbers))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("kinds")
    found = {name: kind.write(root / name) for name, kind in KINDS.items()}
    for name, settings in SETTINGS.items():
        for around, template in PROCESSORS.items():
            key = f"{name}, {around}"
            found[key] = unusual_folder(root / key.replace(" ", "-"), settings, template)
    return found


@pytest.fixture(scope="module")
def references(folders: dict[str, Path]) -> dict[str, dict[str, list[list[int]]]]:
    asked = json.dumps({"folders": [str(folder) for folder in folders.values()], "texts": TEXTS})
    done = subprocess.run(
        [sys.executable, str(PROGRAM)], input=asked, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(folders, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_ids_equal_those_of_transformers(name, folders, references):
    kind, tokenizer = KINDS[name], Tokenizer.load(folders[name])
    expected = references[name]["file" if kind.transformers == "other" else "auto"]
    if kind.transformers == "no bos" or (
        kind.transformers == "other" and not expected[-1][0] >= 400
    ):
        expected = [[*tokenizer.front, *ids] for ids in expected]
    assert tokenizer.encode_many(TEXTS) == expected
    assert [tokenizer.encode(text) for text in TEXTS] == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_ids_equal_those_of_the_server(name, folders, references):
    tokenizer, differs = Tokenizer.load(folders[name]), KINDS[name].server_differs
    for text, expected in zip(TEXTS, references[name]["server"], strict=True):
        assert (tokenizer.encode(text) == expected) == (text not in differs), text


@pytest.mark.slow
@pytest.mark.parametrize("around", PROCESSORS)
@pytest.mark.parametrize("settings", SETTINGS)
def test_unusual_settings_are_read_as_the_server_reads_them(settings, around, folders, references):
    name = f"{settings}, {around}"
    assert Tokenizer.load(folders[name]).encode_many(TEXTS) == references[name]["server"]


@pytest.mark.parametrize("name", KINDS)
def test_prompts_begin_with_bos_and_responses_end_at_any_eos(name, folders):
    kind, tokenizer = KINDS[name], Tokenizer.load(folders[name])
    assert tokenizer.text_of(tokenizer.front) == (kind.bos or "")
    endings = [tokenizer.text_of([one]) for one in tokenizer.eos_ids]
    assert endings[0] == kind.eos[0]
    assert sorted(endings) == sorted(kind.eos)
    for token in tokenizer.eos_ids:
        assert tokenizer.decode([*tokenizer.encode("so", add_special=False), token]) == "so"


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.bos])
def test_a_text_that_begins_with_bos_gets_no_second(name, folders):
    kind, tokenizer = KINDS[name], Tokenizer.load(folders[name])
    bos = tokenizer.front
    assert len(bos) == 1
    text = f"{kind.bos}{kind.bos}so it goes"
    assert tokenizer.encode(text) == tokenizer.encode(text, add_special=False)
    assert tokenizer.encode_many([text]) == [tokenizer.encode(text)]
    assert tokenizer.encode(text)[:3].count(*bos) == 2
    assert tokenizer.encode(f"so {kind.bos}").count(*bos) == 2  # not in front: as it is


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "deepseek_v3",
            ["a prompt begins with", "add_bos_token is true", "alone would put nothing"],
        ),
        ("bos by default, nothing", ["LlamaTokenizerFast of tokenizer_config.json, by default"]),
        ("no bos, bos", ["although add_bos_token of tokenizer_config.json is false"]),
        ("flag of another class, nothing", ["begins with nothing although", "is true"]),
        ("bos and eos, nothing", ["ends without eos although add_eos_token"]),
        ("no bos, eos", ["tokenizer.json puts <|im_end|> (402) behind every prompt"]),
        ("a pad of its own, bos", ["truncation to 4 tokens", "padding that tokenizer.json"]),
        ("a pad of its own, bos", ["lacks '[PAD]'", "it becomes token 403"]),
        ("an eos of its own, bos", ["lacks '</s>'", "it is left out"]),
        ("tokens of added_tokens.json, bos", ["lacks 'over'", "it becomes token 403"]),
        ("special tokens as text, bos", ["stand in a text are read as text"]),
    ],
)
def test_what_the_files_do_not_say_in_the_same_way_is_said(name, said, folders):
    remarks = "\n".join(Tokenizer.load(folders[name]).remarks)
    for part in said:
        assert part in remarks


@pytest.mark.parametrize("name", ["qwen2", "llama_3", "glm4_moe", "mixtral"])
def test_nothing_is_said_where_the_files_agree(name, folders):
    assert Tokenizer.load(folders[name]).remarks == ()


def test_chat_templates_know_the_same_special_tokens(folders):
    folder = folders["deepseek_v3"]
    (folder / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0].content }}")
    rendered = ChatTemplate.load(folder).render([{"role": "user", "content": "so"}])
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.encode(rendered, add_special=False) == tokenizer.encode("so")
    assert tokenizer.encode(rendered) == tokenizer.encode("so")
