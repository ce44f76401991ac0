"""A file of problems: what is taken, and what is said of every line that is not."""

from __future__ import annotations

import bz2
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.data.json_lines import LineProblem
from engine.data.prompt_file import PromptFile, read_prompt_file
from engine.errors import RunError

GOOD = [{"id": f"n{n}", "prompt": f"{n} + {n} = ?", "answer": f"{2 * n}"} for n in range(3)]
TEXT = "".join(json.dumps(record) + "\n" for record in GOOD).encode()


def read(tmp_path: Path, content: bytes) -> PromptFile:
    path = tmp_path / "problems.jsonl"
    path.write_bytes(content)
    return read_prompt_file(path)


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        TEXT.rstrip(),
        TEXT + b"\n  \n\t\r\n",
        b"\xef\xbb\xbf" + TEXT,
        b"\xef\xbb\xbf" * 2 + TEXT.replace(b"}\n{", b"}\n\xef\xbb\xbf{"),
        TEXT.replace(b"\n", b"\r\n"),
    ],
    ids=["plain", "no last line end", "blank at the end", "mark", "marks of joined files", "CRLF"],
)
def test_what_is_right_is_taken(tmp_path: Path, content: bytes):
    file = read(tmp_path, content)
    assert [prompt.prompt for prompt in file.prompts] == [record["prompt"] for record in GOOD]
    assert file.lines == (1, 2, 3)
    assert file.problems == ()


def test_every_wrong_line_is_told_and_the_others_are_read(tmp_path: Path):
    file = read(tmp_path, b"nonsense\n" + TEXT + b"\n[1]\n" + TEXT)
    assert [problem.line for problem in file.problems] == [1, 5, 6, 7, 8, 9]
    assert file.problems[-1].says == "id 'n2' is that of line 4"
    assert file.lines == (2, 3, 4)


OTHERS = {
    "id, question": (
        {"question": "q", "answer": "7"},
        ["'id', 'prompt' are missing", "question to"],
    ),
    "problem, solution": (
        {"id": "a", "problem": "q", "solution": "7"},
        ["rename solution to answer"],
    ),
    "ground truth within": (
        {"id": "a", "prompt": "q", "reward_model": {"ground_truth": "7"}},
        ["key 'answer' is missing", "take reward_model.ground_truth as answer"],
    ),
    "other letters": (
        {"ID": "a", "Prompt": "q", "answer ": "7"},
        ["rename ID to id, rename Prompt to prompt, rename answer  to answer"],
    ),
    "half a key": ({"id": "a", "\ud83d": "q", "answer": "7"}, [r"found id, '\ud83d', answer"]),
    "a long number": ({"id": 10**99, "prompt": "q", "answer": "7"}, ["000...; quote it"]),
    "a chat": ({"id": "a", "prompt": [{"role": "user"}], "answer": "7"}, ["list of messages"]),
    "a chat under its key": ({"id": "a", "messages": [], "answer": "7"}, ["not a chat"]),
    "a number": ({"id": 5, "prompt": "q", "answer": "7"}, ["'id' must be a text", "5; quote it"]),
    "a fraction": ({"id": "a", "prompt": "q", "answer": 0.5}, ["found the number 0.5"]),
    "a truth": ({"id": "a", "prompt": "q", "answer": True}, ["must be a text", "found True"]),
    "nothing": ({"id": "a", "prompt": "q", "answer": None}, ["'answer' must be a text"]),
    "only space": ({"id": "a", "prompt": " \n", "answer": "7"}, ["not empty", "' \\n'"]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_records_of_others_are_called_by_what_they_are(tmp_path: Path, name: str):
    record, said = OTHERS[name]
    (problem,) = read(tmp_path, json.dumps(record).encode()).problems
    for part in said:
        assert part in problem.says


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{'id': 'b'}", ["expected a JSON object, found \"{'id': 'b'}\""]),
        (b'{"id": "b", "prompt": "q", "answer": "7"', ["Expecting ',' delimiter at character 41"]),
        (b'{"id": "b"},', ["Extra data at character 12 of 12"]),
        (b'{"id": "b", "answer": ' + b"7" * 5000 + b"}", ["the limit (4300 digits)"]),
        (b'{"id": "a", "answer": "8", "prompt": "q", "answer": "7"}', ["'answer' stands there 2"]),
        (b"\n", ["found a blank line"]),
        (b'[{"id": "a"}]', ["found a JSON array", "a line of its own"]),
        (b"{", ["write each object on one line"]),
        ("id: ä".encode("latin-1"), ["expected UTF-8, found byte 0xe4", "position 4", "id: ä"]),
        (b"[" * 5000, ["too many levels"]),
        (b'{"id": "a", "prompt": "\\ud83d?", "answer": "7"}', ["'prompt' has half", "'\\ud83d'"]),
        (b'{"id": "a\\ude00", "prompt": "?", "answer": "7"}', ["'id' has half", "position 1"]),
    ],
)
def test_lines_that_are_no_objects_are_called_by_what_they_are(
    tmp_path: Path, line: bytes, said: list[str]
):
    problem = read(tmp_path, line + b"\n" + TEXT).problems[0]
    assert problem.line == 1
    for part in said:
        assert part in problem.says


def test_half_a_character_twice_is_a_whole_one(tmp_path: Path):
    file = read(tmp_path, b'{"id": "a", "prompt": "\\ud83d\\ude00", "answer": "7"}')
    assert file.prompts[0].prompt == "😀"


def test_files_that_hold_no_lines_are_named_by_their_kind(tmp_path: Path):
    pq.write_table(pa.Table.from_pylist(GOOD), tmp_path / "p.jsonl")
    contents = {
        "Parquet": (tmp_path / "p.jsonl").read_bytes(),
        "gzip": b"\x1f\x8b" + bytes(9),
        "bzip2": bz2.compress(TEXT),
        "xz": lzma.compress(TEXT),
        "UTF-16": TEXT.decode().encode("utf-16"),
        "UTF-16 ": TEXT.decode().encode("utf-16-le"),
        "UTF-32": TEXT.decode().encode("utf-32"),
        "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "web page": b"<!DOCTYPE html>\n<p>Sign in</p>\n",
    }
    for kind, content in contents.items():
        with pytest.raises(
            RunError, match=f"expected JSON lines in UTF-8, .* found .*{kind.strip()}"
        ):
            read(tmp_path, content)


def test_lines_wrong_in_one_way_have_one_kind(tmp_path: Path):
    content = b'{"id": "a", "prompt": "q", "answer": 1}\n{"id": "b", "prompt": "q", "answer": 2}\n'
    problems = read(tmp_path, content + b"x\n").problems
    assert [problem.kind for problem in problems] == ["answer is a number"] * 2 + ["no JSON"]
    assert isinstance(problems[0], LineProblem)
