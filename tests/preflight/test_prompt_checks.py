"""What is found in prompt sets, and whether it refuses a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from engine.config.layout import LayoutConfig
from engine.config.sampler import EvaluationConfig, PromptsConfig, RolloutConfig
from engine.config.servers import ServersConfig
from engine.config.training import TrainingConfig
from engine.preflight import prompt_sets, tokenizer
from engine.preflight.finding import Finding
from engine.preflight.sections import Sections
from engine.rewards.table import RewardsConfig

Record = Mapping[str, Any]
WORDS = ["<eos>", "<bos>", "how", "many", "is", "?", *map(str, range(100))]
REWARDS = {"accuracy": {"weight": 1.0}, "format": {"weight": 0.5}}


def problem(number: int, words: int = 4) -> Record:
    """A problem of that many words; its id tells both."""
    prompt = " ".join(["how", str(number), *["many"] * (words - 2)])
    return {"id": f"{number}-{words}", "prompt": prompt, "answer": str(number)}


TRAIN, HELD_OUT = [problem(n) for n in range(20)], [problem(n) for n in range(50, 60)]


class Given:
    """The inputs of a run; ``found`` looks at them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said = folder, list[str]()
        self.model = folder / "model"
        self.model.mkdir()
        backend = tokenizers.Tokenizer(WordLevel({word: n for n, word in enumerate(WORDS)}))
        backend.pre_tokenizer = WhitespaceSplit()
        backend.save(str(self.model / "tokenizer.json"))
        self.write_config()
        self.layout = {"processes": 1}
        self.training = {"dtype": "float32", "tokens_per_microbatch": 64}
        self.rollout = {"prompts_per_step": 4, "group_size": 2, "max_new_tokens": 20}
        self.servers = {"count": 1, "max_total_tokens": 200}
        self.evaluation = {"every": 1, "prompts": 10}
        self.rewards: dict[str, Any] = REWARDS
        self.template = "plain"

    def write_config(self, **more: Any) -> None:
        config = {"vocab_size": 128, "eos_token_id": 0, "max_position_embeddings": 512, **more}
        (self.model / "config.json").write_text(json.dumps(config))

    def found(
        self, train: Sequence[Record] = TRAIN, held_out: Sequence[Record] = HELD_OUT
    ) -> list[Finding]:
        files = {}
        for name, records in (("train", train), ("held_out", held_out)):
            files[name] = self.folder / f"{name}.jsonl"
            lines = (one if isinstance(one, str) else json.dumps(one) for one in records)
            files[name].write_text("".join(f"{line}\n" for line in lines))
        sections = Sections(
            {
                "model": self.model,
                "prompts": PromptsConfig(**files, template=self.template),
                "rollout": RolloutConfig(**self.rollout),
                "servers": ServersConfig(**self.servers),
                "evaluation": EvaluationConfig(**self.evaluation),
                "training": TrainingConfig(**self.training),
                "layout": LayoutConfig(**self.layout),
                "rewards": RewardsConfig.model_validate(self.rewards),
            },
            self.said.append,
        )
        return [*tokenizer.check(sections), *prompt_sets.check(sections)]

    def refusal(self, *records: Any) -> tuple[str, str]:
        """Return key and sentence of the one finding, which refuses."""
        (finding,) = self.found(*records)
        assert finding.refuses, finding
        return ".".join(map(str, finding.key)), finding.says

    def warning(self, *records: Any) -> tuple[str, str]:
        """Return key and sentence of the one finding, a warning."""
        (finding,) = self.found(*records)
        assert not finding.refuses, finding
        return ".".join(map(str, finding.key)), finding.says


@pytest.fixture
def given(tmp_path: Path) -> Given:
    return Given(tmp_path)


def test_nothing_is_found_in_good_sets(given: Given):
    assert given.found() == []
    assert given.said == []


def test_lines_wrong_in_one_way_are_one_sentence_with_the_first_of_them(given: Given):
    bad = [{**problem(n), "answer": n} for n in range(30, 38)]
    findings = given.found([*TRAIN, *bad, "", "7", problem(40)])
    assert [(one.key, one.refuses) for one in findings] == [(("prompts", "train"), True)] * 3
    assert "train.jsonl, line 21: 'answer' must be a text, found the number 30" in findings[0].says
    assert "(lines 22, 23, 24, 25, 26 and 2 more likewise)" in findings[0].says
    assert "line 29: expected a JSON object, found a blank line" in findings[1].says
    assert "line 30: expected a JSON object, found a JSON number" in findings[2].says


def test_both_sets_are_opened(given: Given):
    assert [one.key[1] for one in given.found(["x"], ["y"])] == ["train", "held_out"]


def test_words_without_a_token_are_named_with_id_and_line(given: Given):
    unknown = [{**problem(n), "prompt": f"why {n}"} for n in (30, 31)]
    key, says = given.refusal(TRAIN, [*HELD_OUT, *unknown])
    assert key == "prompts.held_out"
    assert "line 11: (id '30-4') cannot tokenize 'why 30'" in says
    assert says.endswith("(line 12 likewise)")


@pytest.mark.parametrize("over", [0, 1])
def test_context_cache_and_microbatch_have_to_hold_prompt_and_answer(given: Given, over: int):
    new = given.rollout["max_new_tokens"]
    train = [*TRAIN, problem(7, words=30 + over), problem(8, words=30 + over)]
    held_out = [*HELD_OUT, problem(9, words=40 + over)]
    given.training["tokens_per_microbatch"] = 30 + new - 1
    given.servers["max_total_tokens"] = 40 + new + 2
    given.write_config(max_position_embeddings=40 + new + 2)
    findings = given.found(train, held_out)
    if not over:
        assert findings == []
        return
    context, cache, row = findings
    assert context.key == ("model",)
    assert cache.key == ("servers", "max_total_tokens")
    assert row.key == ("training", "tokens_per_microbatch")
    assert "context of 62 tokens has room for prompts of 40 tokens beside" in context.says
    assert "found 1 longer: held_out.jsonl, line 11 (id '9-41', 41 tokens)" in context.says
    assert context.says.endswith("drop them, or lower rollout.max_new_tokens to 19")
    assert "raise it to 63, or lower rollout.max_new_tokens to 19" in cache.says
    assert "found 2 longer: train.jsonl, line 21 (id '7-31', 31 tokens); train.jsonl, line 22" in (
        row.says
    )
    assert "raise it to 50" in row.says
    assert all(finding.refuses for finding in findings)


def test_the_template_counts(given: Given):
    given.template = "r1_zero"
    (finding, *_) = given.found()
    assert "cannot tokenize 'A conversation between User" in finding.says


def test_samples_padded_for_context_parallel_ranks_take_more_of_a_row(given: Given):
    new = given.rollout["max_new_tokens"]
    train = [*TRAIN, problem(7, words=30)]
    given.training["tokens_per_microbatch"] = 30 + new - 1  # 49
    assert given.found(train) == []
    given.layout = {"processes": 2, "cp": 2}
    key, says = given.refusal(train)
    assert key == "training.tokens_per_microbatch"
    assert "room for prompts of 29 tokens" in says
    assert "raise it to 52" in says


@pytest.mark.parametrize(
    ("scaling", "context"),
    [
        (None, 60),
        ({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 30}, 60),
        ({"rope_type": "llama3", "factor": 8.0}, 60),
        ({"type": "linear", "factor": 2.0}, 120),
        ({"rope_type": "default", "rope_theta": 1e4}, 60),
    ],
)
def test_the_context_is_the_servers(given: Given, scaling: Any, context: int):
    given.write_config(max_position_embeddings=60, rope_scaling=scaling)
    findings = given.found([*TRAIN, problem(7, words=39)])
    assert len(findings) == (1 if context == 60 else 0)


def test_held_out_problems_of_the_training_set_are_refused(given: Given):
    again = {**TRAIN[3], "id": "another", "prompt": TRAIN[3]["prompt"].replace(" ", "\n ")}
    key, says = given.refusal(TRAIN, [*HELD_OUT, again])
    assert key == "prompts.held_out"
    assert "found 1 of 11 there: line 11 of" in says
    assert "(the first is line 4 of" in says


def test_the_same_id_in_both_sets_is_no_matter(given: Given):
    assert (
        given.found(TRAIN, [{**one, "id": TRAIN[0]["id"]} for one in HELD_OUT[:1]] + HELD_OUT[1:])
        == []
    )


def test_problems_that_come_several_times_are_spoken_of(given: Given):
    copies = [{**TRAIN[n], "id": f"copy {n} {k}"} for n in (2, 5) for k in range(3)]
    key, says = given.warning([*TRAIN, *copies])
    assert key == "prompts.train"
    assert "6 of 26 problems are there several times with the same answer" in says
    assert "on lines 3, 21, 22, 23;" in says


def test_a_question_with_two_answers_is_spoken_of(given: Given):
    key, says = given.warning(TRAIN, [*HELD_OUT, {**HELD_OUT[1], "id": "b", "answer": "3"}])
    assert key == "prompts.held_out"
    assert "1 question is there with different answers, the first of them on lines 2, 11;" in says


def test_more_held_out_problems_than_there_are_are_refused(given: Given):
    given.evaluation["prompts"] = 11
    key, says = given.refusal()
    assert key == "evaluation.prompts"
    assert "expected at most the 10 held-out problems of" in says
    assert says.endswith("found 11")


def test_a_step_that_asks_problems_twice_is_spoken_of(given: Given):
    given.rollout["prompts_per_step"] = 21
    key, says = given.warning()
    assert key == "rollout.prompts_per_step"
    assert "some of the 20 problems" in says


OPENED = [{**one, "prompt": f"{one['prompt']} <think>\n"} for one in TRAIN]


@pytest.mark.parametrize(
    ("opened", "weight", "refuses"), [(20, 0.5, True), (19, 0.5, False), (20, 0.0, False)]
)
def test_prompts_that_open_the_thoughts_leave_the_format_reward_no_hope(
    given: Given, opened: int, weight: float, refuses: bool
):
    words = [*WORDS, "<think>"]
    backend = tokenizers.Tokenizer(WordLevel({word: n for n, word in enumerate(words)}))
    backend.pre_tokenizer = WhitespaceSplit()
    backend.save(str(given.model / "tokenizer.json"))
    given.rewards = {**REWARDS, "format": {"weight": weight}}
    (finding,) = given.found([*OPENED[:opened], *TRAIN[opened:]])
    assert finding.key == ("rewards", "format")
    assert finding.refuses == refuses
    assert f"no answer to {opened} of 20 problems" in finding.says
    assert "lines 1, 2, 3, 4, 5 and" in finding.says
    assert "ends with <think>" in finding.says


def test_whole_solutions_as_references_leave_the_accuracy_reward_no_hope(given: Given):
    solved = [{**one, "answer": f"It is so.\n#### {one['answer']}"} for one in HELD_OUT]
    key, says = given.refusal(TRAIN, solved)
    assert key == "rewards.accuracy"
    assert "expected what is behind ####: '50'" in says
    given.rewards = {"format": {"weight": 1.0}}
    assert given.found(TRAIN, solved) == []


def test_rewards_that_all_weigh_nothing_are_refused(given: Given):
    given.rewards = {"accuracy": {"weight": 0.0}, "format": {"weight": 0.0}}
    key, says = given.refusal()
    assert key == "rewards" and "found 0 for accuracy, format" in says
    given.rewards = {"accuracy": {"weight": 0.0}, "format": {"weight": 1e-3}}
    assert given.found() == []


def test_prompts_that_become_no_token_are_refused(given: Given):
    backend = tokenizers.Tokenizer.from_file(str(given.model / "tokenizer.json"))
    backend.normalizer = tokenizers.normalizers.Replace("\u200b", "")
    backend.save(str(given.model / "tokenizer.json"))
    unseen = [{**problem(n), "prompt": "\u200b" * n} for n in (30, 31)]
    key, says = given.refusal([*TRAIN, *unseen])
    assert key == "prompts.train" and "the tokenizer makes no token of lines 21, 22, " in says
