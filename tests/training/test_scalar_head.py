"""A model with a scalar head: the same values and updates in every layout, and in its files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from scalar_cases import EPS, HEAD, LEARNING_RATE, UPDATES, refused, three_updates

from engine.config.layout import LayoutConfig
from engine.data.packing import pack
from engine.errors import RunError
from engine.models.sequence_classifier import as_sequence_classifier
from engine.training.heads.scalar import last_positions, whole_text
from engine.training.heads.token_logprobs import TokenLogProbs
from tools.benchmarks.parity.compare import Outcome, compare
from tools.benchmarks.parity.models import MODELS
from tools.benchmarks.rank_pool import RankPool

ONE = LayoutConfig(processes=1)
SIZES: list[dict[str, int]] = [
    {"processes": 2},
    {"processes": 2, "tp": 2},
    {"processes": 2, "pp": 2},
    {"processes": 2, "pp": 2, "vpp": 2},
    {"processes": 2, "cp": 2},
    {"processes": 4, "tp": 2, "pp": 2},
    {"processes": 4, "tp": 2, "cp": 2},
]
CASES = [
    *(("dense", sizes) for sizes in SIZES),
    *(("moe gqa", sizes) for sizes in SIZES[1:]),
    ("moe gqa", {"processes": 2, "ep": 2}),
    ("mla moe mtp", {"processes": 4, "tp": 2, "pp": 2, "ep": 2}),
]
OVERLAP = {
    "overlap_grad_reduce": True,
    "overlap_param_gather": True,
    "bucket_parameters": 3000,
}


def texts(words: int) -> tuple[list[list[int]], list[float]]:
    """Sixteen texts of very different lengths, one of a single token, and what they are worth."""
    generator = torch.Generator().manual_seed(5)
    lengths = [1, *torch.randint(2, 60, (15,), generator=generator).tolist()]
    found = [torch.randint(words, (length,), generator=generator).tolist() for length in lengths]
    return found, torch.randn(16, generator=generator).tolist()


GIVEN = dict(zip(("texts", "targets"), texts(48), strict=True))


@pytest.fixture(scope="module")
def pool() -> Iterator[RankPool]:
    with RankPool(4) as started:
        yield started


def run(pool: RankPool, layout: LayoutConfig, **arguments: Any) -> tuple[dict, Any, Any]:
    """Values of every text from whichever rank has them, and outcomes of the first rank."""
    answers = pool.run(three_updates, layout, **{**GIVEN, **arguments})
    values: dict[int, float] = {}
    for found, _, _ in answers:
        for text, value in found.items():
            assert values.setdefault(text, value) == value  # ranks of one row agree
    return values, answers[0][1], answers[0][2]


@pytest.fixture(scope="module")
def one_process(pool):
    """model -> what one process makes of it, computed when first asked for."""
    known: dict[str, Any] = {}

    def outcome(model: str) -> Any:
        if model not in known:
            known[model] = run(pool, ONE, model=MODELS[model])
        return known[model]

    return outcome


@pytest.mark.slow
@pytest.mark.parametrize(("model", "sizes"), CASES)
def test_a_layout_equals_one_process(pool, one_process, model, sizes):
    values, before, after = one_process(model)
    found, _, updated = run(pool, LayoutConfig.model_validate(sizes), model=MODELS[model])
    assert sorted(values) == sorted(found) == list(range(16))
    assert max(abs(values[text] - found[text]) for text in values) < 1e-5
    difference = compare(before.weights, after, updated)
    assert difference.holds, difference


@pytest.mark.slow
def test_every_part_learns_and_nothing_else_is_there(one_process):
    for model in MODELS:
        _, before, after = one_process(model)
        assert len(after.losses) == 3 and min(after.losses) < after.losses[0]
        keys = [key for key, _ in before.weights]
        assert "score.weight" in keys and "output_layer.weight" not in keys
        assert not [key for key in keys if key.startswith("mtp.")]
        biases = [key for key in keys if key.endswith("expert_bias")]
        assert len(biases) == (3 if model == "mla moe mtp" else 0)
        still = [key for key in before.weights if before.weights[key].equal(after.weights[key])]
        assert not still


@pytest.mark.slow
def test_communication_beside_computation_changes_no_number(pool, one_process):
    values, before, after = one_process("dense")
    found, _, updated = run(pool, LayoutConfig(processes=2), model=MODELS["dense"], options=OVERLAP)
    assert max(abs(values[text] - found[text]) for text in values) < 1e-5
    assert compare(before.weights, after, updated).holds


@pytest.mark.slow
def test_a_checkpoint_goes_on_bit_for_bit_and_in_another_layout(pool, tmp_path):
    arguments = {"model": MODELS["moe gqa"]}
    layout = LayoutConfig(processes=2, tp=2)
    _, before, undisturbed = run(pool, layout, save=tmp_path, **arguments)
    _, _, resumed = run(pool, layout, resume=tmp_path, **arguments)
    assert resumed.losses == undisturbed.losses[2:]
    for key, tensor in undisturbed.weights.items():
        assert resumed.weights[key].equal(tensor), key
    third = Outcome(undisturbed.losses[2:], undisturbed.weights)
    _, _, elsewhere = run(pool, LayoutConfig(processes=4, pp=2, ep=2), resume=tmp_path, **arguments)
    difference = compare(before.weights, third, elsewhere)
    assert difference.holds, difference


@pytest.fixture(scope="module", params=["dense", "moe gqa"])
def language_model(request, tmp_path_factory) -> Path:
    """A folder that transformers wrote."""
    import transformers

    folder = tmp_path_factory.mktemp("language_model")
    torch.manual_seed(0)
    # Without a balance loss, which transformers' class does not have.
    settings = {**MODELS[request.param], "router_aux_loss_coef": 0.0}
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**settings)
    )
    model.float().save_pretrained(folder)
    return folder


def classifier(folder: Path) -> Any:
    """transformers' model of ``folder``; no tensor may be missing, none unexpected."""
    import transformers

    model, loaded = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder,
        output_loading_info=True,
        dtype=torch.float32,
        attn_implementation="eager",
        experts_implementation="eager",
    )
    assert not any(loaded[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model


def their_values(model: torch.nn.Module) -> torch.Tensor:
    """One text a pass."""
    return torch.cat([model(torch.tensor([text])).logits[0] for text in GIVEN["texts"]])


@pytest.mark.slow
def test_from_a_language_models_folder_to_a_classifiers_and_on(pool, language_model, tmp_path):
    """Export loads in transformers, which gives the same values and makes the same updates."""
    exported, again = tmp_path / "exported", tmp_path / "again"
    still = {**HEAD, "seed": 7}
    first, before, after = run(
        pool, LayoutConfig(processes=2, tp=2), source=language_model, export=exported, head=still
    )
    other, elsewhere, _ = run(
        pool, LayoutConfig(processes=2, pp=2), source=language_model, head=still
    )
    fresh = before.weights["score.weight", None]
    assert elsewhere.weights["score.weight", None].equal(fresh)
    assert 0.05 < fresh.std() < 0.2  # initializer_range is 0.1
    assert max(abs(first[text] - other[text]) for text in first) < 1e-5

    theirs = classifier(exported)
    values, loaded, updated = run(pool, ONE, source=exported, export=again, head=HEAD)
    for key, tensor in after.weights.items():
        assert loaded.weights[key].equal(tensor), key
    with torch.no_grad():
        expected = their_values(theirs)
    assert max(abs(values[text] - float(expected[text])) for text in values) < 1e-5

    losses = torch_updates(theirs)
    assert updated.losses == pytest.approx(losses, abs=1e-5)
    start, mine = classifier(exported).state_dict(), classifier(again).state_dict()
    moved = max(float((theirs.state_dict()[n] - start[n]).abs().max()) for n in start)
    for key, tensor in theirs.state_dict().items():
        assert float((mine[key] - tensor).abs().max()) < 0.01 * moved, key


def torch_updates(model: torch.nn.Module) -> list[float]:
    """What an update is, in plain torch: the score layer in a group of its own."""
    trunk = [p for n, p in model.named_parameters() if n != "score.weight"]
    groups = [
        {"params": trunk},
        {
            "params": [model.score.weight],
            "lr": HEAD["learning_rate_factor"] * LEARNING_RATE,
            "weight_decay": HEAD["weight_decay"],
        },
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=LEARNING_RATE, betas=(0.9, 0.95), eps=EPS, weight_decay=0.0
    )
    targets = torch.tensor(GIVEN["targets"])
    losses = []
    for _ in range(UPDATES):
        optimizer.zero_grad()
        loss = ((their_values(model) - targets) ** 2).sum() / 16
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.slow
def test_the_config_of_an_export_names_architecture_and_one_label(pool, language_model, tmp_path):
    run(pool, ONE, source=language_model, export=tmp_path / "exported")
    config = json.loads((tmp_path / "exported" / "config.json").read_text())
    source = json.loads((language_model / "config.json").read_text())
    assert config == as_sequence_classifier(source)
    assert config["architectures"][0].endswith("ForSequenceClassification")
    assert config["id2label"] == {"0": "LABEL_0"}


@pytest.mark.slow
def test_a_weight_for_a_prediction_head_is_refused(pool):
    with pytest.raises(RunError, match=r"training\.mtp_loss_weight: expected 0 .* found 0\.3"):
        pool.run(refused, ONE, model=MODELS["mla moe mtp"], mtp_loss_weight=0.3)


def test_a_language_models_head_refuses_a_classifiers_config():
    head = TokenLogProbs(1.0, 1024)
    assert head.model_config(MODELS["dense"]) is MODELS["dense"]
    with pytest.raises(RunError, match="found Qwen2ForSequenceClassification"):
        head.model_config(as_sequence_classifier(MODELS["dense"]))


@pytest.mark.parametrize("multiples", [(1, 1), (8, 1), (8, 4)])
def test_a_value_is_read_at_each_samples_last_real_token(multiples):
    given = [[5], [6, 7, 8], [9] * 4, [3, 2]]
    row, each = multiples
    packed = pack([whole_text(text) for text in given], row_multiple=row, sample_multiple=each)
    found = last_positions(packed)
    assert packed.tokens[found].tolist() == [text[-1] for text in given]
    assert not packed.padding_mask[found].any()
    starts = packed.cu_seqlens[: len(given)].tolist()
    assert (found + 1 - torch.tensor(starts)).tolist() == [len(text) for text in given]
    assert last_positions(pack([], row_multiple=row, sample_multiple=each)).tolist() == []
