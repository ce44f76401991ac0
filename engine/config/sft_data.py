"""Section ``data`` of supervised fine-tuning: files of conversations and how they become samples.

Two kinds of records are read, from JSON lines and from Parquet files:

- ``chat``: ``{"messages": [{"role": "user", "content": "..."}, ...]}``;
- ``prompt_response``: ``{"prompt": "...", "response": "..."}``.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from engine.config.inputs import RecordFile, inputs_wanted
from engine.config.layout import LayoutConfig
from engine.config.section import Seconds, Section
from engine.config.training import TrainingConfig

RecordFormat = Literal["chat", "prompt_response"]

KEYS: dict[RecordFormat, tuple[str, ...]] = {
    "chat": ("messages",),
    "prompt_response": ("prompt", "response"),
}
"""What a record of each format must have; other keys are left alone."""

_NAMED = 8  # keys that a message names

PARQUET_MAGIC = b"PAR1"
"""First bytes of every Parquet file; what begins otherwise is read as JSON lines."""


class SftDataConfig(Section):
    """Conversations to learn from: where they are, how they become text, what is too long."""

    format: Literal["auto", "chat", "prompt_response"] = Field(
        "auto",
        description="keys of a record: chat has messages (role, content), prompt_response has "
        "prompt and response; auto: what each file's first record has",
    )
    train: tuple[RecordFile, ...] = Field(description="JSON lines or Parquet files to learn from")
    validation: tuple[RecordFile, ...] = Field(
        (), description="files whose loss is measured and never learned; none of them in train"
    )
    validation_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the training conversations held back for validation instead, chosen "
        "by a hash of the first question: answers to the same question stay together",
    )
    template: Literal["model", "plain", "r1_zero"] = Field(
        "model",
        description="text around a conversation: model is the model's own chat template; plain "
        "adds nothing to a question, r1_zero is DeepSeek-R1's table 1 (both: one question each)",
    )
    max_tokens: int = Field(ge=2, description="longest sample, prompt and answer together")
    too_long: Literal["error", "drop"] = Field(
        "error", description="longer samples: error names them and stops, drop counts them"
    )
    wait_seconds: Seconds = Field(
        3600.0, description="limit on the other ranks' wait while rank 0 tokenizes"
    )

    @field_validator("train", "validation")
    @classmethod
    def _first_records_can_be_read(
        cls, files: tuple[Path, ...], info: ValidationInfo
    ) -> tuple[Path, ...]:
        if inputs_wanted(info) and "format" in info.data:
            for file in files:
                _check_first_record(file, info.data["format"])
        return files

    @field_validator("train")
    @classmethod
    def _is_not_empty(cls, train: tuple[Path, ...]) -> tuple[Path, ...]:
        if not train:
            raise ValueError("expected at least one file, found none")
        return train

    @field_validator("validation")
    @classmethod
    def _are_other_files(
        cls, validation: tuple[Path, ...], info: ValidationInfo
    ) -> tuple[Path, ...]:
        for file in validation:
            if file in info.data.get("train", ()):
                raise ValueError(f"expected other files than data.train has, found {str(file)!r}")
        return validation

    @field_validator("validation_share")
    @classmethod
    def _stands_for_files(cls, share: float, info: ValidationInfo) -> float:
        if share and info.data.get("validation"):
            raise ValueError(f"expected 0 where validation names files, found {share:g}")
        return share


def record_format(keys: Collection[str], wanted: str) -> RecordFormat:
    """Return the format of a record with ``keys``; ``wanted`` is the configured one, or ``auto``.

    Raises:
        ValueError: a key is missing, or the record has both formats; names the nearest key.
    """
    if wanted != "auto":
        name: RecordFormat = "chat" if wanted == "chat" else "prompt_response"
        for key in KEYS[name]:
            if key not in keys:
                raise ValueError(missing_key(key, keys))
        return name
    fitting: list[RecordFormat] = [name for name, needed in KEYS.items() if {*needed} <= {*keys}]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ValueError(
            "expected messages, or prompt and response, found all of them; say which with "
            "data.format"
        )
    partly = KEYS["prompt_response"] if {"prompt", "response"} & {*keys} else KEYS["chat"]
    missing = next(key for key in partly if key not in keys)
    raise ValueError(
        f"expected the key messages, or prompt and response: {missing_key(missing, keys)}"
    )


def missing_key(key: str, keys: Collection[str]) -> str:
    """Return one clause about a missing key: what is there, and the nearest to it."""
    near = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
    hint = f"; did you mean {key} by {near[0]!r}?" if near else ""
    found = ", ".join(sorted(keys)[:_NAMED]) + (", ..." if len(keys) > _NAMED else "")
    return f"key {key!r} is missing, found {found or 'no keys'}{hint}"


def check_samples_fit_rows(
    data: SftDataConfig, training: TrainingConfig, layout: LayoutConfig
) -> None:
    """Pass silently if the longest allowed sample fits a row.

    Raises:
        ValueError: it does not; says which ``max_tokens`` would.
    """
    multiple, room = layout.sample_multiple, training.tokens_per_microbatch
    if -(-(data.max_tokens - 1) // multiple) * multiple > room:
        raise ValueError(
            f"expected at most {room // multiple * multiple + 1}, where "
            f"training.tokens_per_microbatch is {room}; found {data.max_tokens}"
        )


def check_template_exists(data: SftDataConfig, model: Path) -> None:
    """Pass silently if the model's folder has the chat template that ``data`` asks for.

    Raises:
        ValueError: it has none, or its tokenizer_config.json cannot be read.
    """
    if data.template == "model" and chat_template_text(model) is None:
        raise ValueError(
            f"expected plain or r1_zero, as {model} has no chat template (chat_template.jinja, or "
            "chat_template in tokenizer_config.json); found model"
        )


def chat_template_text(model: Path) -> str | None:
    """Return the chat template (Jinja) of a Hugging Face folder, or None where it has none.

    ``chat_template.jinja`` comes before ``chat_template`` in tokenizer_config.json; of several
    templates there the one that is named default counts. That is how transformers looks.

    Raises:
        ValueError: a file cannot be read, or there are several templates and no default.
    """
    file = model / "chat_template.jinja"
    try:
        if file.is_file():
            return file.read_text(encoding="utf-8")
        file = model / "tokenizer_config.json"
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: cannot read it ({error})") from None
    template: Any = found.get("chat_template") if isinstance(found, dict) else None
    if isinstance(template, list):
        named = {one.get("name"): one.get("template") for one in template}
        if "default" not in named:
            raise ValueError(f"{file}: expected a chat template named default among {[*named]}")
        template = named["default"]
    if template is not None and not isinstance(template, str):
        raise ValueError(f"{file}: expected a text as chat_template, found {template!r}")
    return template


def _check_first_record(file: Path, wanted: str) -> None:
    with file.open("rb") as opened:
        parquet = opened.read(4) == PARQUET_MAGIC
        opened.seek(0)
        keys = _column_names(file) if parquet else _keys_of(opened.readline(), file)
    try:
        record_format(keys, wanted)
    except ValueError as error:
        raise ValueError(f"{file}{'' if parquet else ', line 1'}: {error}") from None


def _column_names(file: Path) -> list[str]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return list(parquet.read_schema(file).names)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{file}: expected a whole Parquet file ({error})") from None


def _keys_of(line: bytes, file: Path) -> list[str]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # not UTF-8, or not JSON
        record = None
    if not isinstance(record, dict):
        raise ValueError(f"{file}, line 1: expected a JSON object, found {line[:60]!r}")
    return list(record)
