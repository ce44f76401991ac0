"""Every layout computes what one process of transformers computes, packed rows included."""

import pytest
import torch
from ranks import EPS, run_ranks
from safetensors.torch import load_file

LAYOUTS = {
    "one process": {"processes": 1},
    "ep2": {"processes": 2, "ep": 2},
    "tp2 pp2 ep2": {"processes": 4, "tp": 2, "pp": 2, "ep": 2},
}
"""A few: ``test_parity.py`` compares many more with one process."""


def train(reference, layout, folder, **arguments):
    answers = run_ranks(
        "three_updates",
        layout,
        model=reference.model,
        samples=reference.samples,
        checkpoints=folder / "checkpoints",
        export=folder / "export",
        eps=EPS,
        **arguments,
    )
    return answers, load_file(folder / "export" / "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_layout_equals_one_process_of_transformers(reference, layout, tmp_path):
    answers, after = train(reference, layout, tmp_path)

    logp = {int(number): values for a in answers for number, values in a["logp"].items()}
    assert set(logp) == set(range(16))
    for number, values in logp.items():
        assert torch.allclose(torch.tensor(values), reference.logp[number], atol=5e-6)

    for answer in answers:
        assert answer["loss"] == pytest.approx(reference.losses[-1], abs=1e-5)

    assert set(after) == set(reference.after)
    moved = max((reference.after[n] - reference.before[n]).abs().max().item() for n in after)
    for name in after:
        off = (after[name] - reference.after[name]).abs().max().item()
        assert off < 0.01 * moved, f"{name} is off by {off:.1e}, the largest update is {moved:.1e}"

    for load in answers[0]["expert_load"].values():
        assert sum(load) == pytest.approx(1.0)


@pytest.mark.slow
def test_going_on_from_a_checkpoint_gives_the_same_weights_bit_for_bit(reference, tmp_path):
    layout = LAYOUTS["ep2"]
    _, undisturbed = train(reference, layout, tmp_path / "a", save_after=2)
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "checkpoints").rename(tmp_path / "b" / "checkpoints")
    _, resumed = train(reference, layout, tmp_path / "b", resume=True)
    assert all(torch.equal(undisturbed[name], resumed[name]) for name in undisturbed)
