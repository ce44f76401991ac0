from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import ByteLevel, Metaspace, WhitespaceSplit
from tokenizers.processors import TemplateProcessing

from engine.data.tokenizer import Tokenizer, tokenizer_digest
from engine.errors import RunError

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:7\nsize 9\n"
WORDS = ["<pad>", "<eos>", "<bos>", "<think>", "</think>", "7", "等"]


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    backend = tokenizers.Tokenizer(WordLevel({word: token for token, word in enumerate(WORDS)}))
    backend.pre_tokenizer = WhitespaceSplit()
    backend.add_special_tokens(WORDS[:3])
    backend.save(str(tmp_path / "tokenizer.json"))
    write_json(tmp_path / "config.json", {"vocab_size": 8, "eos_token_id": 1})
    return tmp_path


def test_text_becomes_ids_and_comes_back(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.encode("<bos> 7 等") == [2, 5, 6]
    assert tokenizer.decode([3, 6, 4, 5, 1]) == "<think> 等 </think> 7"
    assert tokenizer.vocabulary_size == 8


def test_only_the_eos_that_ends_a_response_is_taken_off(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.decode([5, 1]) == "7"
    assert tokenizer.decode([5]) == "7"  # cut off by the length limit
    assert tokenizer.decode([5, 1, 1]) == "7 <eos>"
    assert tokenizer.decode([2, 5, 0]) == "<bos> 7 <pad>"
    assert tokenizer.decode([]) == tokenizer.decode([1]) == ""


def test_what_the_tokenizer_puts_in_front_is_kept(folder: Path) -> None:
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    backend.save(str(folder / "tokenizer.json"))
    assert Tokenizer.load(folder).encode("7") == [2, 5]


EOS_TOKEN = {"eos_token": "</think>"}
"""tokenizer_config.json; its token is 4."""


@pytest.mark.parametrize(
    ("config", "generation", "settings", "expected"),
    [
        ({"eos_token_id": 1}, None, None, (1,)),
        ({"eos_token_id": 1}, {}, {}, (1,)),
        ({"eos_token_id": 1}, {"eos_token_id": None}, {}, (1,)),
        ({"eos_token_id": 1}, {"eos_token_id": 3}, {}, (3, 1)),
        ({"eos_token_id": [1, 3]}, {"eos_token_id": [4, 1]}, {}, (4, 1, 3)),
        ({}, {"eos_token_id": 3}, {}, (3,)),
        ({}, None, EOS_TOKEN, (4,)),
        ({"eos_token_id": [1, 4]}, {"eos_token_id": 1}, EOS_TOKEN, (4, 1)),
        ({"eos_token_id": 1}, None, {"eos_token": "</s>"}, (1,)),
        ({"model_type": "llama", "eos_token_id": None}, {"eos_token_id": 3}, {}, (3,)),
        ({"model_type": "llama"}, {"eos_token_id": 3}, {}, (3, 2)),
        ({"eos_token_id": 1}, None, {"tokenizer_class": "LlamaTokenizer"}, (1,)),
        ({"eos_token_id": 1}, None, {"bos_token": "<bos>", "eos_token": None}, (1,)),
    ],
)
def test_every_file_that_names_an_ending_token_counts_the_main_one_first(
    folder: Path,
    config: dict[str, Any],
    generation: dict[str, Any] | None,
    settings: dict[str, Any] | None,
    expected: tuple[int, ...],
) -> None:
    write_json(folder / "config.json", {"vocab_size": 8, **config})
    for name, content in (("generation", generation), ("tokenizer", settings)):
        if content is not None:
            write_json(folder / f"{name}_config.json", content)
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.eos_ids == expected
    for token in expected:
        assert tokenizer.decode([5, token]) == "7"


def test_ending_tokens_are_named_where_the_files_differ(folder: Path) -> None:
    write_json(folder / "generation_config.json", {"eos_token_id": [4, 1]})
    write_json(folder / "tokenizer_config.json", {"eos_token": "<bos>"})
    assert Tokenizer.load(folder).remarks == (
        "a response ends at any of <bos> (2: the tokenizer), </think> (4: generation_config.json),"
        " <eos> (1: generation_config.json, config.json)",
    )
    write_json(folder / "generation_config.json", {"eos_token_id": [2, 1]})
    write_json(folder / "config.json", {"vocab_size": 8, "eos_token_id": [1, 2]})
    assert Tokenizer.load(folder).remarks == ()


@pytest.mark.parametrize(
    "model_type",
    ["deepseek_v2", "deepseek_v3", "llama", "mixtral", "qwen2", "qwen3", "qwen3_moe", "glm4_moe"],
)
def test_a_config_without_eos_means_what_it_means_to_the_server(
    folder: Path, model_type: str
) -> None:
    transformers = pytest.importorskip("transformers")
    default = transformers.AutoConfig.for_model(model_type).eos_token_id
    write_json(folder / "config.json", {"vocab_size": 8, "model_type": model_type})
    write_json(folder / "generation_config.json", {"eos_token_id": 4})
    expected = {4} if default is None else {4, default}
    assert set(Tokenizer.load(folder).eos_ids) == expected


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", None),
        ("tokenizer_config.json", {"bos_token": "<bos>"}),
        ("special_tokens_map.json", {"bos_token": "<bos>"}),
        ("config.json", {"vocab_size": 9, "eos_token_id": 1}),
    ],
)
def test_the_digest_tells_what_decides_ids(folder: Path, name: str, content: Any) -> None:
    before = tokenizer_digest(folder)
    write_json(folder / "config.json", {"vocab_size": 8, "eos_token_id": 1, "dtype": "float32"})
    write_json(folder / "generation_config.json", {"eos_token_id": 4})
    assert tokenizer_digest(folder) == before
    file = folder / name
    if content is None:
        file.write_text(file.read_text().replace("等", "何"))
    else:
        write_json(file, content)
    assert tokenizer_digest(folder) != before


def test_an_unknown_word_is_an_error_with_the_text(folder: Path) -> None:
    with pytest.raises(RunError, match="cannot tokenize '7 seven'"):
        Tokenizer.load(folder).encode("7 seven")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, "config.json: cannot read it"),
        ("config.json", "{", "config.json: expected JSON"),
        ("config.json", "[]", "config.json: expected a JSON object"),
        ("config.json", '{"eos_token_id": 1}', "vocab_size must be an integer, found None"),
        ("config.json", '{"vocab_size": 8}', "found no eos_token_id in generation_config.json or"),
        ("config.json", '{"vocab_size": 8, "eos_token_id": []}', "expected a token that ends a"),
        ("config.json", '{"vocab_size": 8, "eos_token_id": "a"}', "list of ids, found 'a'"),
        ("config.json", '{"vocab_size": 8, "eos_token_id": [true]}', "list of ids, found [True]"),
        ("config.json", '{"vocab_size": 8, "eos_token_id": 8}', "[8] is not within the 8 ids"),
        (
            "config.json",
            '{"vocab_size": 6, "eos_token_id": 1}',
            "token id 6 ('等'; 1 such), but vocab",
        ),
        ("tokenizer.json", None, "tokenizer.json: not found"),
        ("tokenizer.json", "{}", "tokenizer.json: not a tokenizer"),
        ("tokenizer.json", LFS, "(it is a pointer of Git LFS; fetch the file itself with git lfs"),
        ("tokenizer_config.json", LFS, "expected JSON (it is a pointer of Git LFS"),
    ],
)
def test_a_bad_folder_gets_one_clear_sentence(
    folder: Path, file: str, content: str | None, message: str
) -> None:
    (folder / file).unlink(missing_ok=True)
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(RunError) as error:
        Tokenizer.load(folder)
    assert message in str(error.value)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokenizer_class": 3}, "tokenizer_class must be a text, found 3"),
        ({"add_bos_token": "yes"}, "add_bos_token must be true or false, found 'yes'"),
        ({"added_tokens_decoder": {"x": {"content": "a"}}}, "expected special tokens as texts"),
        ({"added_tokens_decoder": {"1": "a", "2": 5}}, "expected special tokens as texts"),
        ({"eos_token": {"content": "a", "lstrip": "no"}}, "expected special tokens as texts"),
        ({"additional_special_tokens": [{"text": "a"}]}, "expected special tokens as texts"),
    ],
)
def test_bad_settings_get_one_clear_sentence(
    folder: Path, settings: dict[str, Any], message: str
) -> None:
    write_json(folder / "tokenizer_config.json", settings)
    with pytest.raises(RunError, match=r"tokenizer_config\.json: ") as error:
        Tokenizer.load(folder)
    assert message in str(error.value)


def test_no_transformers_and_no_torch_are_imported() -> None:
    program = (
        "import sys, engine.data.tokenizer, engine.data.prompts, engine.data.templates;"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("flag", [True, False, None])
@pytest.mark.parametrize("adds", [True, False])
@pytest.mark.parametrize("pieces", [True, False])
def test_the_space_in_front_is_that_of_tokenizer_json(
    tmp_path: Path, pieces: bool, adds: bool, flag: bool | None
) -> None:
    backend = tokenizers.Tokenizer(BPE({"a": 0, "Ġ": 1, "▁": 2, "<eos>": 3}, []))
    if pieces:
        scheme = "always" if adds else "never"
        backend.pre_tokenizer = Metaspace(replacement="▁", prepend_scheme=scheme, split=False)
    else:
        backend.pre_tokenizer = ByteLevel(add_prefix_space=adds)
    backend.save(str(tmp_path / "tokenizer.json"))
    write_json(tmp_path / "config.json", {"vocab_size": 8, "eos_token_id": 3})
    write_json(tmp_path / "tokenizer_config.json", {"add_prefix_space": flag})
    said = Tokenizer.load(tmp_path).remarks
    assert len(said) == (flag is not None and flag != adds)
    assert all(
        f"add_prefix_space of tokenizer_config.json is {str(flag).lower()}" in one for one in said
    )


def test_dropout_is_switched_off(tmp_path: Path) -> None:
    words = {letter: number for number, letter in enumerate("abcd")} | {"ab": 4, "abc": 5}
    model = BPE(words, [("a", "b"), ("ab", "c")], dropout=0.99)
    tokenizers.Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    write_json(tmp_path / "config.json", {"vocab_size": 8, "eos_token_id": 3})
    tokenizer = Tokenizer.load(tmp_path)
    assert {tuple(tokenizer.encode("abc")) for _ in range(20)} == {(5,)}
    assert tokenizer.remarks == ("dropout 0.99 that tokenizer.json asks for is switched off",)


def test_an_added_token_beyond_the_vocabulary_names_the_way_out(folder: Path) -> None:
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.add_special_tokens(["[PAD]", "[CLS]"])
    backend.save(str(folder / "tokenizer.json"))
    with pytest.raises(RunError, match=r"token id 8 \('\[CLS\]'; 1 such\).*of its added_tokens"):
        Tokenizer.load(folder)


def test_a_token_of_added_tokens_json_changes_the_digest(folder: Path) -> None:
    before = tokenizer_digest(folder)
    write_json(folder / "added_tokens.json", {"<|user|>": 7})
    assert tokenizer_digest(folder) != before
    assert Tokenizer.load(folder).encode("<|user|>") == [7]
