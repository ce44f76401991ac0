"""Section ``data`` of fine-tuning: rules between its keys, and a look at its files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from pydantic import ValidationError

from engine.config.inputs import input_paths, missing_inputs
from engine.config.layout import LayoutConfig
from engine.config.section import Section
from engine.config.sft_data import (
    SftDataConfig,
    check_samples_fit_rows,
)
from engine.config.training import TrainingConfig


class Run(Section):
    data: SftDataConfig


def config(*files: Path, **options: Any) -> Run:
    return Run.model_validate({"data": {"train": files, "max_tokens": 100, **options}})


def file(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_files_are_looked_at_when_asked_to(tmp_path: Path) -> None:
    chat = file(tmp_path / "a.jsonl", {"messages": []})
    pairs = tmp_path / "b.parquet"
    parquet.write_table(pa.table({"prompt": ["x"], "response": ["y"]}), pairs)
    asked = config(chat, pairs, validation=(file(tmp_path / "c", {"messages": []}),))
    assert missing_inputs(asked) == []
    assert list(input_paths(asked).values()) == [chat, pairs, tmp_path / "c"]
    pairs.unlink()
    assert missing_inputs(asked) == [
        f"data.train.1: expected a JSON lines or Parquet file, found no file {pairs}"
    ]


def test_an_empty_file_is_told(tmp_path: Path) -> None:
    (problem,) = missing_inputs(config(file(tmp_path / "a")))
    assert "expected at least one record, found the empty file" in problem


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": ()}, "expected at least one file, found none"),
        ({"validation": ("a",)}, "expected other files than data.train has, found 'a'"),
        (
            {"validation": ("b",), "validation_share": 0.1},
            "expected 0 where validation names files, found 0.1",
        ),
        ({"validation_share": 1.0}, "less than 1"),
        ({"too_long": "cut"}, "'error' or 'drop'"),
        ({"max_tokens": 1}, "greater than or equal to 2"),
    ],
)
def test_rules_between_keys(options: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(Path("a"), **options)


@pytest.mark.parametrize(("tokens", "fits"), [(97, True), (98, False)])
def test_the_longest_sample_fits_a_row(tokens: int, fits: bool) -> None:
    training = TrainingConfig(dtype="float32", tokens_per_microbatch=98)
    layout = LayoutConfig(processes=2, cp=2)  # samples are padded to multiples of 4
    data = config(Path("a"), max_tokens=tokens).data
    if fits:
        check_samples_fit_rows(data, training, layout)
    else:
        with pytest.raises(ValueError, match=r"expected at most 97, where .* is 98; found 98"):
            check_samples_fit_rows(data, training, layout)


def test_nothing_heavy_is_imported_for_json_lines(tmp_path: Path) -> None:
    good = file(tmp_path / "a.jsonl", {"messages": []})
    program = (
        "import sys, pathlib; from engine.config.inputs import missing_inputs;"
        "from engine.config.sft_data import SftDataConfig;"
        f"found = SftDataConfig(train=(pathlib.Path({str(good)!r}),), max_tokens=9);"
        "assert not missing_inputs(found);"
        "assert not {'torch', 'numpy', 'pyarrow', 'jinja2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
