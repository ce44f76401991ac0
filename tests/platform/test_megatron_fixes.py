"""What megatron does after it was mended, where no other test would tell."""

from __future__ import annotations

import pytest
from fresh_process import run

from engine.platform import accelerator, kernels

ORDER = """
import types
import torch
from engine.platform import accelerator
accelerator.prepare()
from megatron.core import utils
from megatron.core.transformer.moe import token_dispatcher
from megatron.core.transformer.transformer_config import TransformerConfig

config = TransformerConfig(num_layers=1, hidden_size=8, num_attention_heads=1, num_moe_experts=4)

utils.get_pg_size, utils.get_pg_rank = (lambda group: group), (lambda group: 0)

def dispatcher(ep, tp, experts):
    groups = types.SimpleNamespace(ep=ep, expt_tp=tp, tp_ep=ep * tp)  # sizes, for groups
    kind = token_dispatcher.MoEAlltoAllTokenDispatcher
    return kind(experts, list(range(experts)), config, groups)

alone = dispatcher(1, 1, 4)
assert alone.sort_input_by_local_experts is None and alone.restore_output_by_local_experts is None
shared = dispatcher(2, 1, 2)
assert shared.sort_input_by_local_experts.tolist() == [0, 2, 1, 3]
assert dispatcher(1, 2, 4).sort_input_by_local_experts is not None

tokens, weights, sizes = torch.arange(6.0)[:, None], torch.arange(6.0), torch.tensor([1, 2, 0, 3])
same, same_weights = token_dispatcher.sort_chunks_by_idxs(tokens, sizes, None, probs=weights)
assert same is tokens and same_weights is weights
order = shared.sort_input_by_local_experts
found, found_weights = token_dispatcher.sort_chunks_by_idxs(tokens, sizes, order, probs=weights)
assert found.flatten().tolist() == found_weights.tolist() == [0, 1, 2, 3, 4, 5]
moved, _ = token_dispatcher.sort_chunks_by_idxs(tokens, sizes, torch.tensor([3, 0, 1, 2]))
assert moved.flatten().tolist() == [3, 4, 5, 0, 1, 2]
"""


@pytest.mark.slow
def test_chunks_are_sorted_unless_they_come_from_one_rank() -> None:
    run(ORDER)


def test_gradients_accumulate_in_the_products_of_transformer_engines_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without Apex, too; torch's layers need Apex's kernel."""
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    monkeypatch.setattr(accelerator, "has_gpu", lambda: True)
    for engine in (True, False):
        monkeypatch.setattr(accelerator, "has_transformer_engine", lambda engine=engine: engine)
        assert kernels.accumulates_gradients_in_place() is engine
