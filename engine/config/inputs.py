"""Files that a run reads: key types that can be asked whether their file is there.

A configuration can be loaded, printed and compared where its files do not exist. Asked to
(:func:`missing_inputs`, or ``load(..., check_inputs=True)``), the keys of these types look.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ValidationError, ValidationInfo

from engine.config.layout import LayoutConfig
from engine.config.model_sizes import check_fit, model_sizes

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
    """Whether this validation is to look at input files."""
    return bool(info.context and info.context.get("check_inputs"))


def check_model_fits(folder: Path, layout: LayoutConfig) -> None:
    """Compare the model's sizes, from its ``config.json``, with what ``layout`` cuts them into.

    Raises:
        ValueError: a dimension of ``layout`` does not fit; proposes the nearest layout that does.
    """
    check_fit(model_sizes(_read_json(folder / "config.json")), layout)


def _model_folder(folder: Path, info: ValidationInfo) -> Path:
    if inputs_wanted(info):
        _read_config(folder)
        for shard in _shards(folder):
            if not (folder / shard).is_file():
                raise ValueError(f"expected weights file {shard} in {folder}, found none")
    return folder


def _prompt_file(file: Path, info: ValidationInfo) -> Path:
    if inputs_wanted(info):
        if not file.is_file():
            raise ValueError(f"expected a JSON lines file, found no file {file}")
        if not file.stat().st_size:
            raise ValueError(f"expected at least one problem, found the empty file {file}")
    return file


def _read_config(folder: Path) -> None:
    if not folder.is_dir():
        raise ValueError(f"expected a Hugging Face model folder, found no folder {folder}")
    if not (folder / "config.json").is_file():
        raise ValueError(f"expected a Hugging Face model folder, found no config.json in {folder}")
    _read_json(folder / "config.json")


def _shards(folder: Path) -> list[str]:
    """Names of the weight files that ``folder`` should hold."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return ["model.safetensors"]
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"expected a weight_map in {index}, found none")
    return sorted(set(weight_map.values()))


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"expected JSON in {file}, found: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"expected a JSON object in {file}, found {type(content).__name__}")
    return content


ModelFolder = Annotated[Path, AfterValidator(_model_folder)]
"""A Hugging Face folder: config.json and all its safetensors files."""
PromptFile = Annotated[Path, AfterValidator(_prompt_file)]
"""A JSON lines file with at least one problem."""
