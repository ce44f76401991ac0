"""A converted checkpoint in ranks of any layout computes what transformers computes."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from conversions import command, to_hugging_face, to_megatron, verified
from random_models import CONFIGS, MIXTURES, all_tensors, change, random_folder
from rank_call import call

from engine.config.layout import LayoutConfig
from engine.errors import RunError
from tools.benchmarks.rank_pool import RankPool
from tools.convert.cuts import Cuts
from tools.convert.logits import of_transformers, random_prompts
from tools.convert.opening import checkpoint_of_run, open_source

pytestmark = pytest.mark.slow

LAYOUTS = {
    "one process": {"processes": 1},
    "pp3": {"processes": 3, "pp": 3},
    "tp2 pp2 ep2": {"processes": 4, "tp": 2, "pp": 2, "ep": 2},
    "ep4": {"processes": 4, "ep": 4},
}
EVEN = {"vocab_size": 66}  # a model that tp=2 can cut, otherwise as odd as before


@pytest.fixture(scope="module")
def pool() -> Iterator[RankPool]:
    with RankPool(4) as started:
        yield started


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, tuple[Path, Path]]:
    """For each of CONFIGS the source and its checkpoint at TP2 PP2 EP2."""
    found = {}
    for name in CONFIGS:
        folder = tmp_path_factory.mktemp("model")
        more = {**EVEN, "num_experts": 8} if name == "qwen3_moe" else EVEN
        source = random_folder(folder / "source", name, **more)
        ep = 2 if name in MIXTURES else 1
        found[name] = source, to_megatron(source, folder / "there", 2, 2, ep)
    return found


def test_a_value_that_transformers_refuses_is_one_sentence(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen2", "tie_word_embeddings": null}')
    with pytest.raises(RunError, match=r"transformers cannot load .*tie_word_embeddings"):
        of_transformers(tmp_path, [[1]])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("model", CONFIGS)
def test_logits_are_those_of_transformers(pool, models, model, layout):
    sizes = dict(LAYOUTS[layout])
    if model not in MIXTURES:
        sizes.pop("ep", None)
    source, there = models[model]
    prompts = random_prompts(66)
    expected = of_transformers(source, prompts)
    assert torch.cat(expected).std() > 0.5  # a constant would be easy to meet
    answers = pool.run(call, LayoutConfig(**sizes), what="logits", folder=there, prompts=prompts)
    found = [answer for answer in answers if answer is not None]
    assert found
    for ours in found:  # every data-parallel copy of the last stage
        for own, theirs in zip(ours, expected, strict=True):
            assert (own - theirs).abs().max() < 1e-4


@pytest.mark.parametrize("model", CONFIGS)
def test_files_are_cut_as_the_ranks_of_the_layout_want_them(pool, models, model):
    _, there = models[model]
    ep = 2 if model in MIXTURES else 1
    layout = LayoutConfig(processes=4, tp=2, pp=2, ep=ep)
    answers = pool.run(call, layout, what="held", folder=there)
    held = Counter(piece for answer in answers for piece in answer)
    written: Counter = Counter()
    source, cuts = open_source(there), Cuts(2, 2, ep)
    for (key, expert), tensor_map in source.maps.items():
        at = next(s for k, e, s, _ in held if (k, e) == (key, expert))
        for cut in cuts.pieces(key, expert, at):
            written[key, expert, at, tuple((part.start, part.stop) for part in cut)] += 1
        assert tensor_map.key == key
    assert written == Counter(dict.fromkeys(held, 1))
    for rank, answer in enumerate(answers):
        stage = rank // 2
        assert {cuts.stage(key, 3) for key, *_ in answer} <= {stage}


def test_a_checkpoint_of_another_model_is_refused(pool, models):
    source, there = models["qwen3_moe"]
    config = json.loads((source / "config.json").read_text())
    one = LayoutConfig(processes=1)
    more = {**config, "num_hidden_layers": 4}
    said = pool.run(call, one, what="refusal", folder=there, config=more)[0]
    assert "is of another model: it has no decoder.layers.3." in said
    less = {**config, "num_hidden_layers": 2}
    said = pool.run(call, one, what="refusal", folder=there, config=less)[0]
    assert "is of another model: it has decoder.layers.2." in said
    wide = {**config, "moe_intermediate_size": 28}
    assert "cannot be loaded" in pool.run(call, one, what="refusal", folder=there, config=wide)[0]


def test_a_recipe_refuses_a_damaged_folder_as_the_converter_does(pool, models, tmp_path):
    gate = "model.layers.1.mlp.experts.3.gate_proj.weight"
    damages = {
        rf"{gate} has .* NaN": lambda tensor: tensor * float("nan"),
        rf"{gate} is int8": lambda tensor: tensor.to(torch.int8),
        r"gate_proj.*up_proj.*Sizes of tensors must match": lambda tensor: tensor[:, :-1].clone(),
        rf"has no tensor {gate}": lambda tensor: None,
    }
    for number, (message, damage) in enumerate(damages.items()):
        folder = shutil.copytree(models["qwen3_moe"][0], tmp_path / str(number))
        change(folder, gate, damage)
        one = LayoutConfig(processes=1)
        assert re.search(message, pool.run(call, one, what="folder_refusal", folder=folder)[0])


@pytest.fixture(scope="module")
def run(pool, models, tmp_path_factory) -> Path:
    """A run that trained two steps at TP2 PP2 EP2."""
    folder = tmp_path_factory.mktemp("run")
    source, _ = models["qwen3_moe"]
    layout = LayoutConfig(processes=4, tp=2, pp=2, ep=2)
    pool.run(call, layout, what="train_and_save", model=source, run=folder)
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": str(source)}))
    return folder


@pytest.mark.parametrize("step", [1, 2, None])
def test_a_runs_step_is_exported_as_the_trainer_would(run, models, tmp_path, step):
    back = to_hugging_face(run, tmp_path / "back", step=step)
    expected = all_tensors(run / f"exported-{step or 2}")
    assert {n: t.tolist() for n, t in all_tensors(back).items()} == {
        n: t.tolist() for n, t in expected.items()
    }
    first = all_tensors(models["qwen3_moe"][0])
    assert all(
        not torch.equal(first[name], tensor)
        for name, tensor in expected.items()
        if "q_proj" in name
    )
    for name in ("config.json", "tokenizer.json"):
        assert (back / name).read_bytes() == (models["qwen3_moe"][0] / name).read_bytes()


def test_a_run_keeps_its_exports_unless_told_where_to(run):
    arguments = ("megatron-to-hf", run, "--step", "1")
    process = command(*arguments)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    there = run / "hugging_face" / "000001"
    assert str(there) in output
    verified(run / "exported-1", there)
    again = command(*arguments)
    assert f"{there} exists" in again.communicate(timeout=240)[1] and again.returncode == 1
    with pytest.raises(RunError, match="--to has to name"):
        checkpoint_of_run(run / "checkpoints" / "000001")
    inside = command("megatron-to-hf", ".", "--step", "2", cwd=run / "checkpoints")
    assert inside.wait(timeout=240) == 0
    verified(run / "exported-2", run / "hugging_face" / "000002")


def test_a_training_checkpoint_is_resharded_to_a_model_alone(run, tmp_path):
    alone = to_megatron(run / "checkpoints" / "000002", tmp_path / "alone", 1, 1, 1)
    verified(run / "exported-2", alone)


def test_a_step_that_is_not_there_is_named(run, tmp_path):
    with pytest.raises(RunError, match=r"no checkpoint of step 7; it has 1, 2"):
        to_hugging_face(run, tmp_path / "back", step=7)
