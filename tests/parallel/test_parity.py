"""Every layout gives the numbers of one process: losses, and every updated weight by name."""

import pytest

from engine.errors import RunError
from tools.benchmarks.parity.compare import Outcome, compare
from tools.benchmarks.parity.layouts import ONE, layouts, name
from tools.benchmarks.parity.models import MODELS
from tools.benchmarks.parity.updates import LOSSES, three_updates

CASES = [
    pytest.param(model, layout, id=f"{model}-{name(layout)}")
    for model in MODELS
    for layout in layouts(experts=model != "dense")
]


@pytest.fixture(scope="session")
def one_process(pool):
    """model -> what one process makes of it, computed when first asked for."""
    known = {}

    def outcome(model: str) -> dict[str, Outcome]:
        if model not in known:
            known[model] = updated(pool, model, ONE)
        return known[model]

    return outcome


def updated(pool, model, layout):
    return pool.run(three_updates, layout, model=MODELS[model], kinds=list(LOSSES), options={})[0]


def test_there_are_at_least_fourteen_layouts_of_up_to_eight_processes():
    for experts in (True, False):
        assert len(layouts(experts)) >= 14
        assert max(layout.processes for layout in layouts(experts)) == 8


@pytest.mark.slow
@pytest.mark.parametrize(("model", "layout"), CASES)
def test_a_layout_equals_one_process(pool, one_process, model, layout):
    expected = one_process(model)
    found = updated(pool, model, layout)
    for kind in LOSSES:
        difference = compare(expected["before"].weights, expected[kind], found[kind])
        assert difference.holds, f"{kind}: {difference}"


@pytest.mark.slow
def test_the_reference_itself_moves_every_part(one_process):
    """A frozen tensor would agree in every layout."""
    for model in MODELS:
        outcome = one_process(model)
        before = outcome["before"].weights
        for kind in LOSSES:
            after = outcome[kind].weights
            still = [key for key in before if before[key].equal(after[key])]
            assert not still, f"{model}, {kind}"
    biases = [key for key in one_process("mla moe mtp")["sft"].weights if "expert_bias" in key[0]]
    assert len(biases) == 4  # three layers of experts, and the prediction head's


@pytest.mark.slow
def test_a_rank_that_fails_is_named_and_the_pool_goes_on(pool):
    with pytest.raises(RunError, match=r"(?s)rank \d of .*no such option"):
        pool.run(
            three_updates,
            ONE,
            model=MODELS["dense"],
            kinds=["no such option"],
            options={},
        )
    assert pool.run(three_updates, ONE, model=MODELS["dense"], kinds=[], options={}) == [{}]
