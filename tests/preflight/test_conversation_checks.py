"""What is found in conversations before a start, and what the start finds of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from engine.config.reader.loading import load
from engine.config.sft_data import SftDataConfig
from engine.data import sft_dataset
from engine.data.sft_dataset import open_sft_datasets
from engine.errors import RunError
from engine.preflight import conversation_parts, conversations
from engine.preflight.finding import Finding
from engine.preflight.preflight import Preflight
from engine.preflight.sections import Sections
from engine.run.run_checks import checks
from recipes import sft

QUICKSTART = Path(sft.__file__).parent / "configs" / "quickstart" / "sft.yaml"
Record = Mapping[str, Any]
WORDS = ["<eos>", "name", "colour", "of", "apple", "is", "red", *map(str, range(100))]
ALTERNATING = """\
{% for message in messages %}
{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('after a question comes an answer') }}
{% endif %}
{{ message.content + ' ' }}
{% endfor %}"""


def pair(number: int, words: int = 2) -> Record:
    """Question number so, with an answer of so many words; ``words + 5`` tokens in all."""
    answer = " ".join(["red"] * (words - 1))
    return {"prompt": f"colour of apple {number}", "response": f"is {answer}"}


def chat(*contents: str, roles: str = "ua") -> Record:
    names = {"u": "user", "a": "assistant"}
    return {
        "messages": [
            {"role": names[roles[n % len(roles)]], "content": content}
            for n, content in enumerate(contents)
        ]
    }


PAIRS = [pair(n) for n in range(12)]
HELD_BACK = [pair(n) for n in range(60, 65)]


class Given:
    """The inputs of a fine-tuning; ``found`` looks at them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said = folder, list[str]()
        self.model = folder / "model"
        self.model.mkdir()
        backend = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}))
        backend.pre_tokenizer = WhitespaceSplit()
        backend.save(str(self.model / "tokenizer.json"))
        config = {"vocab_size": 128, "eos_token_id": 0, "max_position_embeddings": 30}
        (self.model / "config.json").write_text(json.dumps(config))
        (self.model / "chat_template.jinja").write_text(ALTERNATING)
        self.options: dict[str, Any] = {"template": "plain", "max_tokens": 20}
        self.batch_size = 4

    def write(self, name: str, records: Sequence[Any]) -> Path:
        file = self.folder / name
        lines = (one if isinstance(one, str) else json.dumps(one) for one in records)
        file.write_text("".join(f"{line}\n" for line in lines))
        return file

    def found(
        self, train: Sequence[Any] = PAIRS, validation: Sequence[Any] | None = None
    ) -> list[Finding]:
        files = {"train": (self.write("train.jsonl", train),)}
        if validation is not None:
            files["validation"] = (self.write("validation.jsonl", validation),)
        self.config = SftDataConfig(**files, **self.options)
        return self.look()

    def look(self) -> list[Finding]:
        self.said.clear()
        run = {"run_dir": self.folder / "run", "model": self.model, "batch_size": self.batch_size}
        sections = Sections({**run, "data": self.config}, self.said.append)
        return list(conversations.check(sections))

    def opened(self) -> sft_dataset.SftDatasets:
        return open_sft_datasets(self.config, self.model, self.folder / "run" / "data", rank=0)


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Given:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Given(tmp_path)


def keys_and_says(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    return [(".".join(map(str, one.key)), one.says) for one in findings]


def test_good_conversations_are_counted(given: Given):
    assert given.found(PAIRS, HELD_BACK) == []
    assert given.said == [
        "data.train: 12 samples of 12 conversations",
        "data.validation: 5 samples of 5 conversations",
    ]


def test_a_recipe_without_conversations_is_not_asked(given: Given):
    assert list(conversations.check(Sections({"data": "other"}, print))) == []


def test_every_wrong_line_of_both_files_is_told_by_kind(given: Given):
    mute = [{**pair(n), "response": " "} for n in (21, 22, 23)]
    train = ["nonsense", *PAIRS, *mute, chat("a", "b"), {**pair(30), "response": "green"}]
    validation = [*HELD_BACK, {"prompt": "name", "answer": "red"}]
    findings = given.found(train, validation)
    assert all(one.refuses for one in findings)
    (line, silent, other, words, renamed) = keys_and_says(findings)
    file = given.folder / "train.jsonl"
    assert line == ("data.train.0", f"{file}, line 1: expected a JSON object, found 'nonsense'")
    assert silent[1].startswith(f"{file}, line 14: 'response' must be a text that is not empty")
    assert silent[1].endswith("(lines 15, 16 likewise)")
    assert "line 17: key 'prompt' is missing, found messages" in other[1]
    assert "line 18: cannot tokenize 'green'" in words[1]
    assert renamed[0] == "data.validation.0"
    assert renamed[1].endswith("did you mean response by 'answer'?")


def test_what_the_template_refuses_is_told_with_its_words(given: Given):
    given.options["template"] = "model"
    good, wrong = chat("apple", "is red"), chat("apple", "name", "red", roles="uua")
    twice = chat("apple", "red", "name", "apple", "of", roles="uauua")
    ((key, says),) = keys_and_says(given.found([good, wrong, good, wrong, chat("7", "8")])[:1])
    assert key == "data.train.0"
    assert "line 2: " in says and "refuses it: after a question comes an answer" in says
    assert says.endswith("(line 4 likewise)")
    ((_, says),) = keys_and_says(given.found([good, twice]))
    assert "line 2: answer 2: " in says


def test_refusals_in_words_of_their_own_do_not_flood(given: Given):
    given.options["template"] = "model"
    template = "{{ raise_exception('not ' + messages[0].content) }}"
    (given.model / "chat_template.jinja").write_text(template)
    findings = given.found([chat(str(n), "red") for n in range(50)])
    assert len(findings) == 21
    assert findings[-1].says.endswith("and 30 lines wrong in other ways")


def test_a_missing_template_is_told_beside_wrong_lines(given: Given):
    given.options["template"] = "model"
    (given.model / "chat_template.jinja").unlink()
    template, line = keys_and_says(given.found([chat("apple", "red"), "7"]))
    assert template[0] == "data.template"
    assert "expected a chat template" in template[1] and "data.template=plain" in template[1]
    assert "line 2: expected a JSON object" in line[1]


def test_a_tokenizer_that_is_told_elsewhere_does_not_hide_wrong_lines(given: Given):
    (given.model / "tokenizer.json").write_text("{}")
    ((_, says),) = keys_and_says(given.found([*PAIRS, "[]"]))
    assert "line 13: expected a JSON object" in says


def test_rows_of_parquet_files_are_called_rows(given: Given):
    file = given.folder / "data.parquet"
    records = [*PAIRS, {**pair(1), "response": None}, {**pair(2), "prompt": ""}]
    parquet.write_table(pa.Table.from_pylist([dict(one) for one in records]), file)
    given.config = SftDataConfig(train=(file,), **given.options)
    assert [says.partition(":")[0] for _, says in keys_and_says(given.look())] == [
        f"{file}, row 13",
        f"{file}, row 14",
    ]


def test_a_file_that_is_none_is_told_without_a_line(given: Given):
    bad = given.write("bad.gz", ["\x1f\x00"])
    bad.write_bytes(b"\x1f\x8b12345")
    good = given.write("good.jsonl", PAIRS)
    given.options["validation_share"] = 0.5
    given.config = SftDataConfig(train=(good, bad), **given.options)
    ((key, says),) = keys_and_says(given.look())
    assert key == "data.train.1"
    assert says.startswith(f"{bad}: expected JSON lines") and "a gzip file" in says


def test_too_long_samples_are_refused_with_the_length_that_would_do(given: Given):
    records = [*PAIRS, *(pair(n, words=15 + n) for n in range(20, 27))]
    ((key, says),) = keys_and_says(given.found(records))
    assert key == "data.max_tokens"
    assert f"train.jsonl, line 13 ({15 + 20 + 5} tokens)" in says
    assert says.endswith("and 2 more; raise it to 46, or drop them with data.too_long=drop")
    given.options["max_tokens"] = 46
    assert [one.refuses for one in given.found(records)] == [False]  # the context, see below


def test_what_is_dropped_is_spoken_of(given: Given):
    given.options["too_long"] = "drop"
    (finding,) = given.found([*PAIRS, pair(20, words=20), pair(21, words=22)])
    assert not finding.refuses
    assert finding.key == ("data", "too_long")
    assert finding.says.startswith("2 of 14 samples of data.train have more than 20 tokens")
    assert given.said == ["data.train: 12 samples of 14 conversations, 2 dropped as too long"]


def test_nothing_left_is_refused(given: Given):
    given.options |= {"too_long": "drop", "max_tokens": 3}
    ((key, says),) = keys_and_says(given.found())
    assert key == "data"
    assert "expected conversations to learn, found none (12 read, 12 answers too long)" in says


def test_samples_beyond_the_models_context_are_spoken_of(given: Given):
    given.options["max_tokens"] = 40
    assert given.found([*PAIRS, pair(20, words=25)]) == []
    (finding,) = given.found([*PAIRS, pair(20, words=26)])
    assert not finding.refuses and finding.key == ("data", "max_tokens")
    assert "data.train has 31 tokens, the model's context 30" in finding.says
    (again,) = given.look()  # the tokens are there already
    assert again == finding


def test_the_same_conversation_again_is_spoken_of(given: Given):
    same = {**PAIRS[3], "prompt": PAIRS[3]["prompt"].replace(" ", "  ")}
    (finding,) = given.found([*PAIRS, same, same])
    assert not finding.refuses and finding.key == ("data", "train")
    assert finding.says.startswith("2 of 14 conversations are there already, word for word: ")
    assert "train.jsonl, line 13 is line 4 again" in finding.says


def test_several_answers_to_one_question_are_no_matter(given: Given):
    assert given.found([*PAIRS, pair(3, words=3), pair(3, words=4)]) == []


def test_validation_that_is_trained_on_is_spoken_of(given: Given):
    train, validation = given.folder / "train.jsonl", given.folder / "validation.jsonl"
    (finding,) = given.found(PAIRS, [*HELD_BACK, pair(7, words=5)])
    assert not finding.refuses and finding.key == ("data", "validation")
    assert "the question of 1 of 6 conversations is in data.train too" in finding.says
    assert finding.says.endswith(f"{validation}, line 6 asks what {train}, line 8 asks")


def test_a_batch_larger_than_the_set_is_spoken_of(given: Given):
    given.batch_size = 12
    assert given.found() == []
    given.batch_size = 13
    (finding,) = given.found()
    assert not finding.refuses and finding.key == ("batch_size",)
    assert "some of the 12 samples of data.train several times" in finding.says


def test_wrong_lines_are_told_once_where_a_share_is_held_back(given: Given):
    given.options["validation_share"] = 0.4
    records = [pair(n) for n in range(40)]
    (finding,) = given.found([*records, "7"])
    assert finding.key == ("data", "train", 0)
    assert given.found(records) == []
    train, validation = (int(line.split()[1]) for line in given.said)
    assert train + validation == 40 and validation > 0


def test_the_start_takes_the_tokens_of_the_check(given: Given, monkeypatch: pytest.MonkeyPatch):
    assert given.found(PAIRS, HELD_BACK) == []
    monkeypatch.setattr(sft_dataset, "Tokenizing", None)
    monkeypatch.setattr(conversation_parts, "Tokenizing", None)
    opened = given.opened()
    assert opened.validation is not None
    assert [len(one.tokens) for one in (opened.train, opened.validation)] == [12, 5]
    assert given.look() == []  # nor does a second check make them again


def test_a_restart_takes_those_of_the_run(given: Given, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(given.write("in the way", [])))
    assert given.found() == []  # without a cache
    assert given.said == ["data.train: 12 samples of 12 conversations"]
    given.opened()
    monkeypatch.setattr(conversation_parts, "Tokenizing", None)
    assert given.look() == []
    assert given.said == ["data.train: 12 samples of 12 conversations"]


def test_wrong_conversations_leave_nothing_in_the_cache(given: Given):
    given.found([*PAIRS, "7"])
    given.found([*PAIRS, pair(20, words=30)])
    assert [*(given.folder / "cache").rglob("*.bin")] == []


def test_what_nobody_has_used_for_long_is_forgotten(given: Given):
    given.found()
    (old,) = (given.folder / "cache" / "r1-engine" / "conversations").iterdir()
    os.utime(old, (0, 0))
    given.look()
    assert old.stat().st_mtime > 0  # it is used again
    os.utime(old, (0, 0))
    given.found(HELD_BACK)
    assert not old.exists()


def test_of_very_many_only_some_are_tokenized_and_that_is_said(
    given: Given, monkeypatch: pytest.MonkeyPatch
):
    size = given.write("train.jsonl", PAIRS).stat().st_size
    monkeypatch.setattr(conversation_parts, "_TOKENIZED_BYTES", size // 4 + 1)
    monkeypatch.setattr(conversation_parts, "_PROGRESS_SECONDS", -1.0)
    unknown = [{**one, "response": "green"} for one in PAIRS]
    assert given.found([PAIRS[0], *unknown[1:4], *PAIRS[4:]]) == []  # they are met by the run
    assert "data.train: 7 conversations are looked at" in given.said
    assert given.said[-1] == (
        "data.train: 12 conversations; one of 4 is tokenized before the start (3 samples of 3"
        " conversations), all others when the run begins"
    )
    ((_, says),) = keys_and_says(given.found([PAIRS[0], *unknown[1:4], *PAIRS[4:], "7"]))
    assert "line 13" in says  # every line is read all the same


def test_very_many_that_a_run_has_tokenized_are_not_read_again(
    given: Given, monkeypatch: pytest.MonkeyPatch
):
    given.found([*PAIRS, PAIRS[0]])
    given.opened()
    monkeypatch.setattr(conversation_parts, "_TOKENIZED_BYTES", 100)
    monkeypatch.setattr(conversation_parts, "part_records", None)
    assert given.look() == []
    assert given.said == ["data.train: 13 samples of 13 conversations"]


def test_a_start_of_the_recipe_asks_for_all_of_it(given: Given):
    """What the launcher and ``--check`` do before they start anything."""
    train = given.write("train.jsonl", [*PAIRS, "7", "[]"])
    overrides = [f"model={given.model}", f"data.train=[{train}]", f"run_dir={given.folder / 'run'}"]
    look = Preflight(given.said.append, checks("recipes.sft", sft.Config))
    with pytest.raises(RunError) as error:
        load(sft.Config, QUICKSTART, [*overrides, "data.validation_share=0"], look=look)
    assert "data.train[0]: " in str(error.value)
    assert "line 13: expected a JSON object, found a JSON number ('7')" in str(error.value)
    assert "line 14: " not in str(error.value)  # of the same kind
    assert "(line 14 likewise)" in str(error.value)


def test_looking_needs_no_torch():
    program = (
        "import sys, engine.preflight.conversation_parts;"
        "assert not {'torch', 'transformers', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
