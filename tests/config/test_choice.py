"""Objects chosen by name: options are checked, explained and written back like all other keys."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from engine.algorithms.grpo import Grpo
from engine.algorithms.table import ALGORITHMS
from engine.config.choice import Choice, Choices, own_code
from engine.config.inputs import inputs_wanted, missing_inputs
from engine.config.reader import command_line
from engine.config.reader.keys import all_keys
from engine.config.reader.loading import as_yaml, load
from engine.config.section import Section
from engine.errors import RunError
from engine.run.sections import AlgorithmConfig


class Tool(BaseModel):
    """What all tools have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    weight: float = Field(1.0, ge=0, description="in kilograms")


MODULE = '''
"""A tool's module."""
from pathlib import Path
from pydantic import Field
from test_choice import Tool

class {name}(Tool):
    """The {name}. More of it."""
    {fields}

TOOL = {name}
'''


class ToolConfig(Choice):
    """The tool of the day."""

    table: ClassVar[Mapping[str, str]] = {"hammer": "toy_hammer", "saw": "toy_saw"}
    attribute: ClassVar[str] = "TOOL"
    chosen: Tool = Field(description="made of the options")


class ToolsConfig(Choices):
    """All tools in the box."""

    table: ClassVar[Mapping[str, str]] = ToolConfig.table
    attribute: ClassVar[str] = "TOOL"
    chosen: dict[str, Tool] = Field(description="made of the options")


class Job(Section):
    """A job with one tool and a box of tools."""

    tool: ToolConfig = Field(description="what is in the hand")
    box: ToolsConfig = Field(description="what is at hand")
    steps: int = Field(1, ge=1, description="how many")


@pytest.fixture(autouse=True, scope="module")
def modules(tmp_path_factory):
    """Modules of tools, and one of a person's own, on the path of imports."""
    folder = tmp_path_factory.mktemp("tools")
    hammer = 'head: int = Field(ge=1, description="size of its head")'
    saw = (
        'teeth: tuple[int, int] = Field((1, 2), description="in two rows")\n'
        '    case: Path = Field(Path("case"), description="where it lies")'
    )
    (folder / "mine").mkdir()
    for file, name, fields in (
        ("toy_hammer.py", "Hammer", hammer),
        ("toy_saw.py", "Saw", saw),
        ("mine/named.py", "Named", 'name: str = Field("x", description="of it")'),
        ("mine/drill.py", "Drill", 'bits: int = Field(3, description="how many")'),
    ):
        (folder / file).write_text(MODULE.format(name=name, fields=fields))
    (folder / "mine/empty.py").touch()
    (folder / "mine/number.py").write_text("TOOL = 3")
    (folder / "mine/broken.py").write_text("import no_such_thing")
    (folder / "mine/syntax.py").write_text("TOOL =")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(
        "tool: {name: hammer, head: 3}\nbox:\n  saw: {teeth: [5, 6]}\n  hammer: {head: 1}\n"
    )
    return path


def problems(file: Path, *overrides: str, model: type[BaseModel] = Job) -> str:
    with pytest.raises(RunError) as caught:
        load(model, file, overrides)
    return str(caught.value).removeprefix(f"{file}: ")


def test_a_name_and_options_give_an_object(file: Path):
    job = load(Job, file, ["tool.weight=2"])
    assert (type(job.tool.chosen).__name__, job.tool.chosen.weight) == ("Hammer", 2.0)
    assert list(job.box.chosen) == ["saw", "hammer"]  # in the section's order
    assert job.box.chosen["saw"].model_dump() == {
        "weight": 1.0,
        "teeth": (5, 6),
        "case": Path("case"),
    }


def test_what_is_saved_is_loaded_unchanged(file: Path):
    job = load(Job, file, ["tool.name=saw", "tool={name: saw, case: a/b}", "box.saw.weight=0"])
    file.write_text(as_yaml(job))
    assert load(Job, file) == job
    assert as_yaml(load(Job, file)) == as_yaml(job) == file.read_text()
    assert file.read_text().startswith(
        "tool:\n  name: saw\n  weight: 1.0\n  teeth:\n  - 1\n  - 2\n"
    )
    assert Job.model_validate(job.model_dump()) == job


def test_a_module_of_ones_own_is_named_by_its_dotted_name(file: Path):
    overrides = ["tool={name: mine.drill, bits: 7}", "box={mine.drill: {}, saw: {}}"]
    job = load(Job, file, [*overrides, "box.mine.drill.bits=9"])
    assert job.tool.chosen.model_dump() == {"weight": 1.0, "bits": 7}
    assert job.box.chosen["mine.drill"].model_dump()["bits"] == 9
    file.write_text(as_yaml(job))
    assert load(Job, file) == job
    said = problems(file, "tool.bits=x", "box.mine.drill.bist=1")
    assert 'tool.bits: expected an integer, found "x" (override tool.bits=x)' in said
    assert "box.mine.drill.bist: unknown key, did you mean box.mine.drill.bits?" in said


def test_a_name_without_options_takes_the_defaults(file: Path):
    file.write_text("tool: {name: saw}\nbox:\n  saw:\n")
    assert load(Job, file).box.chosen["saw"] == load(Job, file).tool.chosen


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "tool.name=hamer",
            "tool.name: expected one of hammer, saw, or a module with a class TOOL (a name with a "
            'dot), found "hamer"; did you mean hammer? (override tool.name=hamer)',
        ),
        ("tool.name=3", "tool.name: expected one of hammer, saw, or a module"),
        ("tool.name=", "tool.name: expected one of hammer, saw, or a module"),
        ("tool={head: 3}", "tool.name: missing, expected one of hammer, saw, or a module"),
        ("tool=3", "tool: expected a section with the key name and the options of what it names, "),
        ("tool.head=0", "tool.head: expected an integer >= 1, found 0 (override tool.head=0)"),
        ("tool.head=2.0", "tool.head: expected an integer >= 1, found 2.0"),
        ("tool.haed=1", "tool.haed: unknown key, did you mean tool.head? (override tool.haed=1)"),
        (
            "tool.teeth=[1, 2]",
            "tool.teeth: unknown key, saw has it, hammer has not; valid here: name, weight, head",
        ),
        ("tool.stesp=1", "tool.stesp: unknown key, did you mean steps?"),
        ("tool={name: hammer}", "tool.head: missing, expected an integer >= 1: size of its head"),
        ("box.haw={}", "box.haw: unknown key, did you mean box.saw?"),
        ("box.plane={}", "box.plane: unknown key, valid here: hammer, saw; a module with a class"),
        ("box.saw=3", "box.saw: expected a section with the keys weight, teeth, case, found 3"),
        ("box.saw.teeth=[1]", "box.saw.teeth[1]: missing, expected an integer: in two rows"),
        ("box.saw.weight=-1", "box.saw.weight: expected a number >= 0, found -1"),
        ("box=3", "box: expected a section with the keys hammer, saw, found 3"),
        ("box={}", "box: expected at least one of hammer, saw, or a module"),
        (
            "tool.name=mine.gone",
            "tool.name: expected a module mine.gone under the folder that the run is started in, "
            "found none",
        ),
        ("tool.name=gone.gone", "tool.name: expected a module gone.gone under the folder"),
        (
            "tool.name=mine.empty",
            "tool.name: expected TOOL in module mine.empty to be a subclass of test_choice.Tool, "
            "found none",
        ),
        (
            "tool.name=mine.named",
            "tool.name: expected options of mine.named that are not called name",
        ),
        ("box={mine.number: {}}", "box.mine.number: expected TOOL in module mine.number to be a"),
        ("tool.name=mine.broken", "module mine.broken that can be imported: No module named 'no_"),
        ("tool.name=mine.syntax", "module mine.syntax that can be imported: SyntaxError: invalid"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(file: Path, override: str, said: str):
    assert said in problems(file, override)


def test_everything_that_is_wrong_is_said_at_once(file: Path):
    said = problems(
        file, "tool.head=0", "tool.wieght=1", "box.saw.weight=x", "box.hammer.head=0", "steps=0"
    )
    assert said.splitlines()[0] == "5 problems"
    for key in ("tool.head", "tool.wieght", "box.saw.weight", "box.hammer.head", "steps"):
        assert f"\n  {key}: " in said


def test_a_wrong_option_names_its_line(file: Path):
    file.write_text("tool:\n  name: hammer\n  head: 0\nbox:\n  saw:\n    weight: -1\n")
    assert problems(file).splitlines()[1:] == [
        "  tool.head: expected an integer >= 1, found 0 (line 3)",
        "  box.saw.weight: expected a number >= 0, found -1 (line 6)",
    ]


def test_another_name_with_options_of_the_first_names_each_of_them(file: Path):
    assert problems(file, "tool.name=saw") == (
        "tool.head: unknown key, hammer has it, saw has not; valid here: name, weight, teeth, case "
        "(line 1)"
    )


def test_help_lists_the_options_of_every_known_name(file: Path, capsys):
    with pytest.raises(SystemExit):
        command_line.read(Job, "recipes.job", lambda _: [], ["--help"])
    text = capsys.readouterr().out
    keys = text.partition("keys of CONFIG:\n")[2]
    assert keys == (
        "  tool: what is in the hand\n"
        "    name: which one; the other keys here are its options (one of hammer, saw, or a module "
        "with a\n        class TOOL (a name with a dot))\n"
        "    with name hammer: The Hammer. More of it.\n"
        "      weight: in kilograms (a number >= 0; default 1.0)\n"
        "      head: size of its head (an integer >= 1)\n"
        "    with name saw: The Saw. More of it.\n"
        "      weight: in kilograms (a number >= 0; default 1.0)\n"
        "      teeth: in two rows (a list of 2 integers; default [1, 2])\n"
        "      case: where it lies (a path; default case)\n"
        "  box: what is at hand\n"
        "    hammer: The Hammer. More of it.\n"
        "      weight: in kilograms (a number >= 0; default 1.0)\n"
        "      head: size of its head (an integer >= 1)\n"
        "    saw: The Saw. More of it.\n"
        "      weight: in kilograms (a number >= 0; default 1.0)\n"
        "      teeth: in two rows (a list of 2 integers; default [1, 2])\n"
        "      case: where it lies (a path; default case)\n"
        "  steps: how many (an integer >= 1; default 1)\n"
    )


def test_a_problem_names_the_override_below_it(file: Path):
    assert problems(file, "box.swa.weight=1") == (
        "box.swa: unknown key, did you mean box.saw? (override box.swa.weight=1)"
    )


def test_keys_are_those_of_the_named_or_of_all_known(file: Path):
    every = {".".join(key) for key in all_keys(Job)}
    assert {"tool.name", "tool.head", "tool.teeth", "box.saw.case", "box.hammer.head"} <= every
    of_hammer = {".".join(key) for key in all_keys(Job, {"tool": {"name": "hammer"}})}
    assert every - of_hammer == {"tool.teeth", "tool.case"}


class Checked(Tool):
    """A tool whose file may be missing."""

    file: Path = Field(description="of it")

    @field_validator("file")
    @classmethod
    def _is_there(cls, file: Path, info: ValidationInfo) -> Path:
        if inputs_wanted(info) and not file.is_file():
            raise ValueError(f"expected a file, found no {file}")
        return file


TOOL = Checked


def test_input_files_of_options_are_looked_at_when_asked(file: Path, tmp_path: Path, monkeypatch):
    table = {"checked": __name__}
    monkeypatch.setattr(ToolConfig, "table", table)
    monkeypatch.setattr(ToolsConfig, "table", table)
    file.write_text("tool: {name: checked, file: gone}\nbox: {checked: {file: gone}}\n")
    said = ["tool.file: expected a file, found no gone", "box.checked.file: expected a file, found"]
    assert all(found in "".join(missing_inputs(load(Job, file))) for found in said)
    with pytest.raises(RunError) as caught:
        load(Job, file, look=lambda _: [])
    assert all(found in str(caught.value) for found in said)


class Recipe(Section):
    """A recipe with an algorithm."""

    algorithm: AlgorithmConfig = Field(description="of learning")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_is_one_override_away(name: str, tmp_path: Path):
    file = tmp_path / "zero.yaml"
    file.write_text("algorithm: {name: grpo, kl_coefficient: 0.001}\n")
    config = load(Recipe, file, [f"algorithm.name={name}", "algorithm.clip_high=0.28"])
    assert config.algorithm.name == name
    assert config.algorithm.chosen.model_dump()["clip_high"] == 0.28
    assert config.algorithm.chosen.uses_reference
    file.write_text(as_yaml(config))
    assert load(Recipe, file) == config


def test_an_algorithm_of_ones_own_needs_all_its_methods(tmp_path: Path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own").mkdir()
    (tmp_path / "own/half.py").write_text(
        "from engine.algorithms.algorithm import Algorithm\nclass ALGORITHM(Algorithm):\n    'x'\n"
    )
    (tmp_path / "own/whole.py").write_text(
        "from engine.algorithms.grpo import Grpo\nclass ALGORITHM(Grpo):\n    extra: int = 3\n"
    )
    file = tmp_path / "zero.yaml"
    file.write_text("algorithm: {name: own.half}\n")
    assert problems(file, model=Recipe) == (
        "algorithm.name: expected ALGORITHM in module own.half to define advantages, policy_loss, "
        "token_weights (line 1)"
    )
    chosen = load(Recipe, file, ["algorithm.name=own.whole"]).algorithm.chosen
    assert isinstance(chosen, Grpo)
    assert chosen.model_dump()["extra"] == 3


def test_modules_of_ones_own_have_a_digest_and_known_ones_have_none(file: Path):
    assert own_code(load(Job, file)) == {}
    box = "box={saw: {}, mine.drill: {bits: 2}}"
    job = load(Job, file, ["tool={name: mine.drill}", box])
    found = own_code(job)
    assert set(found) == {"tool (code)", "box.mine.drill (code)"}
    assert len(set(found.values())) == 1
    other = load(Job, file, ["tool={name: mine.drill, bits: 9}"])  # options say themselves
    assert own_code(other)["tool (code)"] == found["tool (code)"]
    source = Path(inspect.getfile(type(job.tool.chosen)))
    source.write_text(source.read_text() + "# another")
    assert own_code(job).keys() == found.keys()
    assert own_code(job)["tool (code)"] != found["tool (code)"]
