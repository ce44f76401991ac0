"""Input files are looked at only when asked, and each that is missing is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.config.inputs import missing_inputs
from engine.config.reader.loading import load
from engine.errors import RunError
from recipes.zero import Config as Config

QUICKSTART = Path(__file__).parents[2] / "recipes/configs/quickstart/zero.yaml"
SIZES = {"num_experts": 8, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture
def overrides(tmp_path: Path) -> list[str]:
    """Overrides that point the quickstart at input files which are all there."""
    (tmp_path / "config.json").write_text(json.dumps(SIZES))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    for name in ("train", "held_out"):
        (tmp_path / f"{name}.jsonl").write_text("{}\n")
    return [
        f"model={tmp_path}",
        f"prompts.train={tmp_path}/train.jsonl",
        f"prompts.held_out={tmp_path}/held_out.jsonl",
    ]


def said(overrides: list[str]) -> list[str]:
    return missing_inputs(load(Config, QUICKSTART, overrides))


def test_nothing_is_said_where_all_inputs_are_there(overrides: list[str]):
    assert said(overrides) == []
    assert load(Config, QUICKSTART, overrides, look=lambda _: []).steps == 80


def test_a_tilde_is_the_home_folder(
    overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    at_home = ["model=~/", "prompts.train=~/train.jsonl", "prompts.held_out=~/held_out.jsonl"]
    assert said(at_home) == []
    config = load(Config, QUICKSTART, at_home)
    assert (config.model, config.prompts.train) == (tmp_path, tmp_path / "train.jsonl")
    (message,) = said([*overrides, "prompts.train=~nobody-of-that-name/x"])
    assert message.endswith("found no file ~nobody-of-that-name/x")


def test_every_missing_input_is_named():
    gone = ["model=gone", "prompts.train=gone.jsonl", "prompts.held_out=gone2.jsonl"]
    assert said(gone) == [
        "model: expected a Hugging Face model folder, found no folder gone",
        "prompts.train: expected a JSON lines file, found no file gone.jsonl",
        "prompts.held_out: expected a JSON lines file, found no file gone2.jsonl",
    ]


def test_missing_inputs_and_wrong_keys_are_reported_together():
    with pytest.raises(RunError) as caught:
        load(Config, QUICKSTART, ["model=gone", "steps=0"], look=lambda _: [])
    assert "found no folder gone (override model=gone)" in str(caught.value)
    assert "steps: expected an integer >= 1, found 0" in str(caught.value)


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_what_is_in_a_model_folder_is_not_looked_at_here(
    overrides: list[str], tmp_path: Path, content: str | None
):
    if content is None:
        (tmp_path / "config.json").unlink()
    else:
        (tmp_path / "config.json").write_text(content)
    assert said(overrides) == []


def test_a_run_that_has_not_finished_and_a_file_are_no_model_folder(
    overrides: list[str], tmp_path: Path
):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (message,) = said([*overrides, f"model={tmp_path}/run"])
    assert message.startswith("model: expected a finished run, found no result.json")
    (message,) = said([*overrides, f"model={tmp_path}/model.safetensors"])
    assert message.startswith("model: expected a Hugging Face model folder, found a file")
    assert message.endswith("model.safetensors: name the folder that it lies in")


@pytest.mark.parametrize(("name", "hint"), [("Maker/Model-8B", True), ("./gone", False)])
def test_a_name_of_the_hub_is_not_fetched(overrides: list[str], name: str, hint: bool):
    (message,) = said([*overrides, f"model={name}"])
    assert ("download it first (hf download Maker/Model-8B)" in message) == hint


def test_an_empty_prompt_file_is_refused(overrides: list[str], tmp_path: Path):
    (tmp_path / "train.jsonl").write_text("")
    assert said(overrides) == [
        f"prompts.train: expected at least one problem, found the empty file {tmp_path}/train.jsonl"
    ]


@pytest.mark.parametrize(
    ("layout", "complaint"),
    [
        (
            "{processes: 3, ep: 3}",
            "expected ep to divide the model's 8 experts, found 3; nearest possible: ep=1",
        ),
        (
            "{processes: 4, pp: 4}",
            "expected pp * vpp to be at most the model's 2 layers, found 4; nearest possible: pp=2",
        ),
        (
            "{processes: 8, tp: 8}",
            "expected tp to divide the model's 4 attention heads, found 8; nearest possible: tp=4",
        ),
        (
            "{processes: 2, pp: 2, first_stage_layers: 3}",
            "expected the model's 2 layers to fill 2 pipeline stages, found 3 in the first, "
            "which leaves -1 for the others",
        ),
    ],
)
def test_the_layout_divides_the_model(overrides: list[str], layout: str, complaint: str):
    assert said([*overrides, f"layout={layout}"]) == [f"layout: {complaint}"]
