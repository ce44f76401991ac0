"""Key types for files that a run reads, and checks that the files exist.

A configuration can be loaded, printed and compared where its files do not exist. Asked to
(:func:`missing_inputs`, or ``load(..., look=...)``), the keys of these types are checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ValidationError, ValidationInfo

from engine.config.layout import LayoutConfig
from engine.config.model_fit import check_fit
from engine.config.model_sizes import model_sizes

CHOSEN = "chosen"
"""Field of ``engine.config.choice`` whose keys stand a level above it in a file."""

CHECK_INPUTS = {"check_inputs": True}
"""The validation context in which input files are looked at."""


def missing_inputs(config: BaseModel) -> list[str]:
    """Return one sentence for each file that ``config`` names and that is missing or unusable."""
    try:
        type(config).model_validate(config.model_dump(), context=CHECK_INPUTS)
    except ValidationError as error:
        return [
            f"{'.'.join(map(str, problem['loc']))}: {problem['ctx']['error']}"
            for problem in error.errors()
        ]
    return []


def inputs_wanted(info: ValidationInfo) -> bool:
    """Return whether this validation checks input files."""
    return bool(info.context and info.context.get("check_inputs"))


def check_model_fits(model: Path, layout: LayoutConfig) -> None:
    """Check that ``layout`` can split a model; one without a readable ``config.json`` passes.

    Args:
        model: a Hugging Face folder, or a ``config.json`` alone. What is wrong with it is told of
            the key that names it (``engine.preflight.model_folder``).

    Raises:
        ValueError: a dimension of ``layout`` does not fit; proposes the nearest layout that does.
    """
    try:
        config = _read_json(model if model.is_file() else model / "config.json")
    except ValueError:
        return
    check_fit(model_sizes(config), layout)


def input_paths(config: BaseModel, above: str = "") -> dict[str, Path]:
    """Return the files and folders that ``config`` reads, by dotted key; lists by position."""
    found: dict[str, Path] = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        key = f"{above}{name}" if name != CHOSEN else above.rstrip(".")
        if isinstance(value, BaseModel):
            found |= input_paths(value, f"{key}.")
        elif isinstance(value, Mapping):
            for each, below in value.items():
                if isinstance(below, BaseModel):
                    found |= input_paths(below, f"{key}.{each}.")
        elif _is_input(field.metadata) and isinstance(value, Path):
            found[key] = value
        elif isinstance(value, list | tuple):
            is_input = _is_input(_of_entries(field.annotation))
            for number, entry in enumerate(value):
                if isinstance(entry, BaseModel):
                    found |= input_paths(entry, f"{key}.{number}.")
                elif is_input:
                    found[f"{key}.{number}"] = entry
    return found


def _is_input(metadata: Sequence[Any]) -> bool:
    return any(getattr(getattr(m, "func", None), "__module__", "") == __name__ for m in metadata)


def _of_entries(annotation: Any) -> Sequence[Any]:
    """Return the metadata of a list's entries."""
    kinds = get_args(annotation)
    return get_args(kinds[0])[1:] if kinds and get_origin(kinds[0]) is Annotated else ()


def _at_home(path: Path) -> Path:
    """Return ``path`` with ``~`` as the home folder: in ``model=~/x`` no shell replaces it."""
    try:
        return path.expanduser()
    except RuntimeError:  # no such user: no such file either
        return path


def _model_folder(folder: Path, info: ValidationInfo) -> Path:
    folder = _made_by_a_run(folder)
    if inputs_wanted(info):
        if not folder.is_dir():
            found = f"a file {folder}" if folder.exists() else f"no folder {folder}"
            raise ValueError(
                f"expected a Hugging Face model folder, found {found}{_way_out(folder)}"
            )
        if (folder / "checkpoints").is_dir() and not (folder / "config.json").is_file():
            raise ValueError(f"expected a finished run, found no result.json in {folder}")
    return folder


def _way_out(path: Path) -> str:
    """Return what to name in place of ``path``, which is no folder, else ""."""
    if path.is_file():
        return ": name the folder that it lies in"
    looks_like_a_name = not path.is_absolute() and len(path.parts) == 2
    if looks_like_a_name and not path.parent.exists():
        return f": nothing is fetched from the Hub, download it first (hf download {path})"
    return ""


def _made_by_a_run(folder: Path) -> Path:
    """Return RUN_DIR/model for RUN_DIR, the folder of a finished run; others as they are."""
    if (folder / "result.json").is_file() and not (folder / "config.json").is_file():
        return folder / "model"
    return folder


def _model_config(file: Path, info: ValidationInfo) -> Path:
    if inputs_wanted(info):
        if not file.is_file():
            raise ValueError(f"expected a Hugging Face config.json, found no file {file}")
        _read_json(file)
    return file


def _prompt_file(file: Path, info: ValidationInfo) -> Path:
    if inputs_wanted(info):
        if not file.is_file():
            raise ValueError(f"expected a JSON lines file, found no file {file}")
        if not file.stat().st_size:
            raise ValueError(f"expected at least one problem, found the empty file {file}")
    return file


def _record_file(file: Path, info: ValidationInfo) -> Path:
    if inputs_wanted(info):
        if not file.is_file():
            raise ValueError(f"expected a JSON lines or Parquet file, found no file {file}")
        if not file.stat().st_size:
            raise ValueError(f"expected at least one record, found the empty file {file}")
    return file


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"expected JSON in {file}, found: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"expected a JSON object in {file}, found {type(content).__name__}")
    return content


_HOME = AfterValidator(_at_home)

ModelFolder = Annotated[Path, _HOME, AfterValidator(_model_folder)]
"""A Hugging Face folder, or a finished run's folder; ``engine.preflight`` looks into it."""
ModelConfigFile = Annotated[Path, _HOME, AfterValidator(_model_config)]
"""A Hugging Face config.json: a model's sizes without its weights."""
PromptFile = Annotated[Path, _HOME, AfterValidator(_prompt_file)]
"""A JSON lines file with at least one problem."""
RecordFile = Annotated[Path, _HOME, AfterValidator(_record_file)]
"""A JSON lines or Parquet file with at least one record."""
