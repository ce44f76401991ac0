"""What a person sees of a recipe's command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from engine.config.reader import command_line
from engine.config.reader.keys import all_keys
from engine.errors import RunError
from recipes.zero import Config as Config

QUICKSTART = str(Path(__file__).parents[2] / "recipes/configs/quickstart/zero.yaml")


def read(*arguments: str) -> Config:
    return command_line.read(Config, "recipes.zero", lambda _: [], arguments)


def test_config_and_overrides_give_the_configuration():
    assert read(QUICKSTART, "steps=3", "seed=7").steps == 3


@pytest.mark.parametrize("where", [0, 1, 2, 3])
def test_flags_stand_anywhere_among_overrides(where: int, capsys):
    arguments = [QUICKSTART, "steps=3", "seed=7"]
    arguments.insert(where, "--print")
    with pytest.raises(SystemExit) as left:
        read(*arguments)
    assert left.value.code == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["steps"], shown["seed"]) == (3, 7)


def test_check_reports_missing_inputs_and_wrong_keys_at_once():
    with pytest.raises(RunError) as caught:
        read(QUICKSTART, "model=gone", "stesp=3", "--check")
    assert "no folder gone" in str(caught.value)
    assert "did you mean steps?" in str(caught.value)


def test_check_of_a_sound_configuration_says_so(tmp_path: Path, capsys):
    (tmp_path / "config.json").write_text("{}")
    for name in ("model.safetensors", "train", "held_out"):
        (tmp_path / name).write_text("x")
    with pytest.raises(SystemExit) as left:
        read(
            QUICKSTART,
            f"model={tmp_path}",
            f"prompts.train={tmp_path / 'train'}",
            f"prompts.held_out={tmp_path / 'held_out'}",
            "--check",
        )
    assert left.value.code == 0
    assert "no problems found" in capsys.readouterr().out


def test_help_explains_every_key_and_shows_examples(capsys):
    with pytest.raises(SystemExit) as left:
        read("--help")
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert "python -m recipes.zero CONFIG --check" in text
    assert all(f"{key[-1]}: " in text for key in all_keys(Config))
    assert "None" not in text
