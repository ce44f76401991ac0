"""Weight rules convert exactly, in both directions, and say what they cannot."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RunError
from engine.models.families.qwen3_moe import FAMILY
from engine.models.family import family_of
from engine.models.weight_rules import Copies, GateUp, GroupedQkv, Rule, Same, expand

CONFIG = {
    "model_type": "qwen3_moe",
    "num_hidden_layers": 3,
    "max_position_embeddings": 64,
    "hidden_size": 12,
    "intermediate_size": 16,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 2,
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 4,
    "norm_topk_prob": True,
    "rms_norm_eps": 1e-6,
}


@given(
    groups=st.integers(1, 4),
    heads_per_group=st.integers(1, 4),
    head_dim=st.integers(1, 5),
    hidden=st.sampled_from([(), (3,)]),
)
def test_grouped_qkv_split_undoes_join(groups, heads_per_group, head_dim, hidden):
    heads = groups * heads_per_group
    rows = [heads * head_dim, groups * head_dim, groups * head_dim]
    parts = [torch.randn(count, *hidden) for count in rows]
    join = GroupedQkv(heads, groups, head_dim)
    for before, after in zip(parts, join.split(join.join(parts)), strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize(
    ("join", "shape"),
    [(Same(), (5, 3)), (Copies(3), (5, 3)), (GateUp(), (8, 3)), (GroupedQkv(6, 2, 3), (30, 7)),
     (GroupedQkv(4, 4, 2), (24,))],
)  # fmt: skip
def test_shapes_are_split_as_tensors_are(join, shape):
    parts = [tuple(part.shape) for part in join.split(torch.empty(shape))]
    assert join.split_shape(shape) == parts


def test_grouped_qkv_puts_each_groups_heads_together():
    # 4 heads of size 1 in 2 groups: rows q0 q1 k0 v0 q2 q3 k1 v1
    q, k, v = torch.tensor([0.0, 1, 2, 3]), torch.tensor([10.0, 11]), torch.tensor([20.0, 21])
    assert GroupedQkv(4, 2, 1).join([q, k, v]).tolist() == [0, 1, 10, 20, 2, 3, 11, 21]


def test_gate_up_puts_the_gate_first():
    gate, up = torch.zeros(2, 3), torch.ones(2, 3)
    joined = GateUp().join([gate, up])
    assert joined[:2].eq(0).all() and joined[2:].eq(1).all()
    assert [part.mean().item() for part in GateUp().split(joined)] == [0.0, 1.0]


def test_every_hugging_face_name_is_used_exactly_once():
    names = [name for tensor in expand(FAMILY.rules(CONFIG)).values() for name in tensor.names]
    assert len(names) == len(set(names))
    assert "model.layers.2.mlp.experts.4.down_proj.weight" in names
    # per layer: 2 norms, q k v o, q_norm k_norm, gate, 3 per expert; outside: 3
    assert len(names) == 3 * (2 + 4 + 2 + 1 + 3 * 5) + 3


def test_tied_embeddings_have_no_output_layer():
    tied = expand(FAMILY.rules({**CONFIG, "tie_word_embeddings": True})).values()
    assert "lm_head.weight" not in {name for tensor in tied for name in tensor.names}


def test_two_rules_for_one_tensor_are_refused():
    with pytest.raises(ValueError, match="same megatron tensor"):
        expand([Rule("a", ("x",)), Rule("a", ("y",))])


def test_an_unknown_family_is_named_with_the_known_ones():
    with pytest.raises(RunError, match=r"model_type 'gpt2'; known are: .*qwen3_moe"):
        family_of({"model_type": "gpt2"})


def test_an_architecture_that_is_not_expressed_is_refused_by_its_key():
    with pytest.raises(RunError, match="decoder_sparse_step 2"):
        FAMILY.architecture({**CONFIG, "decoder_sparse_step": 2})
