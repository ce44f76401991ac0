"""What is sound comes back unchanged; what is not is named, all of it at once."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field
from strategies import zero_configs

from engine.algorithms.grpo import Grpo
from engine.config.reader.keys import all_keys, dotted
from engine.config.reader.loading import as_yaml, load
from engine.config.reader.yaml_reader import parse
from engine.config.section import Section
from engine.errors import RunError
from recipes.zero import Config as Config

QUICKSTART = Path(__file__).parents[2] / "recipes/configs/quickstart/zero.yaml"
KEYS = sorted(all_keys(Config, parse(QUICKSTART.read_text())[0]))


def problems(*overrides: str, file: Path = QUICKSTART) -> str:
    with pytest.raises(RunError) as caught:
        load(Config, file, overrides)
    return str(caught.value)


def edited(folder: Path, old: str, new: str) -> Path:
    text = QUICKSTART.read_text()
    assert old in text
    file = folder / "edited.yaml"
    file.write_text(text.replace(old, new, 1))
    return file


@given(config=zero_configs())
@settings(max_examples=60, deadline=None)
def test_what_is_saved_is_loaded_unchanged(config: Config, tmp_path_factory):
    file = tmp_path_factory.mktemp("saved") / "config.yaml"
    file.write_text(as_yaml(config))
    assert load(Config, file) == config


def test_every_override_of_a_leaf_is_the_saved_value(tmp_path: Path):
    overrides = ["optimizer.lr=3e-4", "optimizer.betas=[0.5, 0.75]", "run_dir=a b/c", "layout.tp=2"]
    config = load(Config, QUICKSTART, overrides)
    assert config.optimizer.lr == 0.0003
    assert config.optimizer.betas == (0.5, 0.75)
    assert config.run_dir == Path("a b/c")
    assert (config.layout.processes, config.layout.tp, config.layout.dp) == (2, 2, 1)


@pytest.mark.parametrize(
    ("written", "meant"),
    [("runs/try #2", "runs/try #2"), ("'a: b'", "a: b"), ("runs/~me", "runs/~me")],
)
def test_a_text_is_taken_as_the_shell_gave_it(written: str, meant: str):
    assert load(Config, QUICKSTART, [f"run_dir={written}"]).run_dir == Path(meant)


def test_the_last_of_two_overrides_counts():
    assert load(Config, QUICKSTART, ["steps=7", "steps=8"]).steps == 8


def misspelt() -> Iterator[tuple[str, str]]:
    """Every key without its second letter, and with two letters exchanged."""
    for key in KEYS:
        *outer, name = key
        for wrong in (name[0] + name[2:], name[:-2] + name[-1] + name[-2]):
            other = outer == ["algorithm"] and name not in {"name", *Grpo.model_fields}
            if not other and wrong != name and (*outer, wrong) not in KEYS and len(name) > 3:
                yield dotted((*outer, wrong)), dotted(key)


@pytest.mark.parametrize(("wrong", "right"), list(misspelt()))
def test_every_unknown_key_names_its_nearest(wrong: str, right: str):
    message = problems(f"{wrong}=1")
    assert f"{wrong}: unknown key, did you mean {right}? (override {wrong}=1)" in message


@given(name=st.text(string.ascii_lowercase, min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_no_unknown_key_is_ever_accepted(name: str):
    if (name,) not in KEYS:
        assert f"{name}: unknown key" in problems(f"{name}=1")


def test_a_key_in_the_wrong_section_is_sent_to_the_right_one():
    assert "lr: unknown key, did you mean optimizer.lr?" in problems("lr=1")
    assert "reference.group_size: unknown key, did you mean rollout.group_size?" in problems(
        "reference.group_size=1"
    )


def test_all_problems_are_reported_at_once(tmp_path: Path):
    file = edited(tmp_path, "servers:\n  count: 2", "servers:\n  cuont: 2")
    message = problems(
        "layout.processes=3",
        "layout.tp=2",
        "training.dtype=fp8",
        "minibatches=7",
        "optimizer.betas=[0.9]",
        "steps.more=1",
        "nonsense",
        file=file,
    )
    head, *lines = message.splitlines()
    assert head == f"{file}: 8 problems"
    assert len(lines) == 8
    for key in (
        "layout.cp",
        "training.dtype",
        "minibatches",
        "optimizer.betas[1]",
        "servers.cuont",
        "servers.count",
        "override 'steps.more=1'",
        "override 'nonsense'",
    ):
        assert sum(line.strip().startswith(f"{key}: ") for line in lines) == 1, key


def test_a_problem_names_the_line_it_stands_in(tmp_path: Path):
    file = edited(tmp_path, "steps: 80", "steps: ninety")
    line = file.read_text().splitlines().index("steps: ninety") + 1
    assert problems(file=file) == (
        f'{file}: steps: expected an integer >= 1, found "ninety" (line {line})'
    )


def test_a_missing_key_says_what_it_is_for(tmp_path: Path):
    message = problems(file=edited(tmp_path, "steps: 80\n", ""))
    assert re.search(r": steps: missing, expected an integer >= 1: training steps", message)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("steps=2.0", "steps: expected an integer >= 1, found 2.0"),
        ("steps=true", "steps: expected an integer >= 1, found true"),
        ("steps='2'", 'steps: expected an integer >= 1, found "2"'),
        ("steps=0", "steps: expected an integer >= 1, found 0"),
        ("steps=1:30", 'steps: expected an integer >= 1, found "1:30"'),
        ("model=", "model: expected a path, found null"),
        ("model=7", "model: expected a path, found 7"),
        ("optimizer.lr=.inf", "optimizer.lr: expected a number > 0, found Infinity"),
        ("optimizer.lr=.nan", "optimizer.lr: expected a number > 0, found NaN"),
        (
            "rollout.temperature=9e-7",
            "rollout.temperature: expected a number >= 1e-06, found 9e-07",
        ),
        ("seed=4294967296", "seed: expected an integer >= 0 and < 4294967296, found 4294967296"),
        (
            "servers.request_seconds=2e10",
            "request_seconds: expected a number > 0 and <= 1000000000.0, found 20000000000.0",
        ),
        ("evaluation.top_p=1.5", "evaluation.top_p: expected a number > 0 and <= 1, found 1.5"),
        ("layout=3", "layout: expected a section with the keys processes, tp, pp, vpp, cp, ep, "),
        ("prompts.template=zero", "expected one of plain, r1_zero, found"),
        ("optimizer.betas=[0.9, 2]", "optimizer.betas[1]: expected a number >= 0 and < 1, found 2"),
        ("optimizer={lr: 1, lr: 2}", "key lr stands here again, first in line 1"),
        ("seed=" + "8" * 5000, "(a number of 5,000 digits)"),
        ("model=" + "[" * 3000, "(too many levels)"),
        (r'model="runs/\udcff"', r"('runs/\udcff' has half a character)"),
        (r'optimizer={"\ud800": 1}', "has half a character)"),
        ("optimizer.lr=[1", "override 'optimizer.lr=[1': expected a YAML value"),
        ("steps.more=1", "override 'steps.more=1': steps is no section"),
        ("a..b=1", "override 'a..b=1': expected key=value"),
        ("=1", "override '=1': expected key=value"),
    ],
)
def test_wrong_values_are_refused_with_what_was_expected(override: str, said: str):
    assert said in problems(override)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["layout.processes=6", "layout.tp=4"],
            "layout.cp: expected tp * pp * cp to divide processes, found 4 * 1 * 1 and "
            "processes = 6; nearest possible: tp=3, or processes=8",
        ),
        (["layout.processes=2", "layout.tp=4"], "nearest possible: tp=2, or processes=4"),
        (
            ["layout.processes=8", "layout.pp=2", "layout.ep=3"],
            "layout.etp: expected ep * etp to divide processes / pp = 4, found 3 * 1; "
            "nearest possible: ep=4",
        ),
        (["layout.vpp=2"], "layout.vpp: expected 1 where pp is 1, found 2"),
        (["optimizer.min_lr=1"], "optimizer.min_lr: expected at most lr = 0.0003, found 1"),
        (["servers.port=65535"], "servers.port: expected room for 2 consecutive ports"),
        (["minibatches=7"], "minibatches: expected a divisor of rollout.prompts_per_step"),
        (["minibatches=7"], "nearest possible: 8"),
        (["rollout.max_new_tokens=2048"], "max_new_tokens below training.tokens_per_microbatch"),
        (["servers.max_total_tokens=90"], "max_total_tokens above rollout.max_new_tokens = 90"),
        (["prompts.held_out=x", "prompts.train=x"], "expected another file than prompts.train"),
    ],
)
def test_rules_between_keys_propose_what_is_possible(overrides: list[str], said: str):
    assert said in problems(*overrides)


class Stage(Section):
    """One stage."""

    steps: int = Field(ge=1, description="of the stage")


class Stages(Section):
    """A recipe with a list of sections."""

    stages: list[Stage] = Field(description="in their order")


def test_an_entry_of_a_list_is_overridden_by_its_number(tmp_path: Path):
    file = tmp_path / "stages.yaml"
    file.write_text("stages: [{steps: 1}, {steps: 2}]")
    stages = load(Stages, file, ["stages.1.steps=5"]).stages
    assert [stage.steps for stage in stages] == [1, 5]


def test_problems_within_lists_name_the_entry(tmp_path: Path):
    file = tmp_path / "stages.yaml"
    file.write_text("stages:\n- {steps: 0}\n- {stesp: 2}\n- 3\n")
    with pytest.raises(RunError) as caught:
        load(Stages, file, ["stages.3.steps=1", "stages.x=1"])
    assert str(caught.value).splitlines()[1:] == [
        "  override 'stages.3.steps=1': stages is a list with 3 entries, the first of them 0; "
        "found '3'",
        "  override 'stages.x=1': stages is a list with 3 entries, the first of them 0; found 'x'",
        "  stages[0].steps: expected an integer >= 1, found 0 (line 2)",
        "  stages[1].steps: missing, expected an integer >= 1: of the stage (line 3)",
        "  stages[1].stesp: unknown key, did you mean stages[1].steps? (line 3)",
        "  stages[2]: expected a section with the keys steps, found 3 (line 4)",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: [1", "line 1: not valid YAML"),
        ("steps: 1\nseed: 2\nsteps: 3\n", "line 3: not valid YAML: key steps stands here again"),
        ("a: &x 1\nb: *x\n", "line 2: not valid YAML: alias *x"),
        ("a: !!python/object/apply:os.system [ls]\n", "tag tag:yaml.org,2002:python/object"),
        ("- 1\n- 2\n", "expected keys with values, found [1, 2]"),
        ("steps: \x07\n", "not allowed"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(text: str, said: str, tmp_path: Path):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    message = problems(file=file)
    assert message.startswith(str(file))
    assert said in message


def test_an_empty_file_lacks_every_required_key(tmp_path: Path):
    file = tmp_path / "empty.yaml"
    file.write_text("# nothing yet\n")
    required = [name for name, field in Config.model_fields.items() if field.is_required()]
    message = problems(file=file)
    assert all(f"  {name}: missing" in message for name in required)


def test_a_missing_file_is_named_with_the_nearest_one(tmp_path: Path):
    (tmp_path / "zero.yaml").touch()
    message = problems(file=tmp_path / "zer0.yaml")
    assert message == (
        f"no configuration file {tmp_path / 'zer0.yaml'}; did you mean {tmp_path / 'zero.yaml'}?"
    )


def test_a_folder_or_binary_file_is_no_configuration(tmp_path: Path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for file in (tmp_path, tmp_path / "binary.yaml"):
        assert problems(file=file).startswith(f"cannot read configuration file {file}: ")
