"""Log-probability and entropy from hidden states, against torch's autograd on all logits."""

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from naive_scores import naive
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.training.heads.log_probability import log_probability_and_entropy


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    store = dist.FileStore(str(tmp_path_factory.mktemp("store") / "file"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


def inputs(tokens, width, vocabulary, seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    hidden = torch.randn(tokens, width).to(dtype).requires_grad_()
    weight = torch.randn(vocabulary, width).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(vocabulary, (tokens,))


def gradients(function, hidden, weight, weights):
    """Values, then the gradients of a weighted sum of them."""
    chosen, entropy = function(hidden, weight)
    loss = (chosen * weights[0] + entropy * weights[1]).sum()
    return chosen, entropy, *torch.autograd.grad(loss, (hidden, weight))


@given(
    tokens=st.integers(1, 13),
    width=st.integers(1, 9),
    vocabulary=st.integers(1, 17),
    chunk=st.integers(1, 15),
    temperature=st.sampled_from([0.3, 0.7, 1.0, 2.0]),
    seed=st.integers(0, 1000),
)
def test_values_and_gradients_equal_autograd_on_all_logits(
    group, tokens, width, vocabulary, chunk, temperature, seed
):
    hidden, weight, targets = inputs(tokens, width, vocabulary, seed)
    weights = torch.randn(2, tokens)
    expected = gradients(
        lambda h, w: naive(h.double(), w.double(), targets, temperature), hidden, weight, weights
    )
    found = gradients(
        lambda h, w: log_probability_and_entropy(h, w, targets, temperature, group, chunk),
        hidden,
        weight,
        weights,
    )
    for one, other in zip(expected, found, strict=True):
        assert other.dtype == torch.float32
        torch.testing.assert_close(other.double(), one.double(), atol=1e-4, rtol=1e-5)


def test_the_chunk_size_changes_rounding_only(group):
    hidden, weight, targets = inputs(64, 32, 101)
    weights = torch.randn(2, 64)
    results = [
        gradients(
            lambda h, w, c=chunk: log_probability_and_entropy(h, w, targets, 0.8, group, c),
            hidden,
            weight,
            weights,
        )
        for chunk in (64, 1, 7, 1000)
    ]
    for other in results[1:]:
        for one, same in zip(results[0], other, strict=True):
            torch.testing.assert_close(same, one, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("which", [0, 1])
def test_a_loss_of_one_of_the_two_has_the_right_gradient(group, which):
    hidden, weight, targets = inputs(9, 4, 11)
    expected = torch.autograd.grad(
        naive(hidden, weight, targets, 0.7)[which].sum(), (hidden, weight)
    )
    found = log_probability_and_entropy(hidden, weight, targets, 0.7, group, 4)[which]
    for one, other in zip(
        expected, torch.autograd.grad(found.sum(), (hidden, weight)), strict=True
    ):
        torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_what_is_frozen_gets_no_gradient_and_the_other_the_same(group, frozen):
    hidden, weight, targets = inputs(9, 4, 11)
    log_probability_and_entropy(hidden, weight, targets, 1.0, group, 4)[0].sum().backward()
    full = {"hidden": hidden.grad, "weight": weight.grad}
    alone = {"hidden": hidden.detach().clone(), "weight": weight.detach().clone()}
    trained = next(name for name in alone if name != frozen)
    alone[trained].requires_grad_()
    log_probability_and_entropy(
        **alone, targets=targets, temperature=1.0, group=group, chunk_tokens=4
    )[0].sum().backward()
    assert alone[frozen].grad is None
    assert torch.equal(alone[trained].grad, full[trained])


def test_without_gradients_the_values_are_the_same(group):
    hidden, weight, targets = inputs(9, 4, 11)
    with torch.no_grad():
        quick = log_probability_and_entropy(hidden, weight, targets, 0.7, group, 4)
    slow = log_probability_and_entropy(hidden, weight, targets, 0.7, group, 4)
    for one, other in zip(quick, slow, strict=True):
        assert not one.requires_grad and other.requires_grad and torch.equal(one, other)


def test_huge_logits_do_not_overflow(group):
    hidden = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    weight = torch.tensor([[1.0], [0.0], [-1.0]])
    chosen, entropy = log_probability_and_entropy(
        hidden, weight, torch.tensor([0, 0]), 1.0, group, 1
    )
    assert chosen.tolist() == [0.0, -2e4] and entropy.tolist() == [0.0, 0.0]
    (chosen + entropy).sum().backward()
    assert hidden.grad.tolist() == [[0.0], [2.0]]  # (1 - 0) of the target, - 1 of the likely word


def test_bfloat16_is_float32_arithmetic_on_the_bfloat16_numbers(group):
    hidden, weight, targets = inputs(33, 48, 65, dtype=torch.bfloat16)
    weights = torch.randn(2, 33)
    expected = gradients(
        lambda h, w: naive(h.float(), w.float(), targets, 0.7), hidden, weight, weights
    )
    found = gradients(
        lambda h, w: log_probability_and_entropy(h, w, targets, 0.7, group, 8),
        hidden,
        weight,
        weights,
    )
    for one, other in zip(expected[:2], found[:2], strict=True):
        torch.testing.assert_close(other, one, atol=2e-5, rtol=1e-5)
    for one, other in zip(expected[2:], found[2:], strict=True):
        assert other.dtype == torch.bfloat16
        torch.testing.assert_close(other, one, atol=1e-3, rtol=2**-7)  # one step of bfloat16


def test_a_bfloat16_gradient_of_many_chunks_is_rounded_once(group):
    """Summed in bfloat16, 1/256 stops growing long before 512 tokens have added theirs."""
    hidden = torch.full((512, 1), 1 / 256, dtype=torch.bfloat16)
    weight = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    targets = torch.zeros(512, dtype=torch.int64)
    log_probability_and_entropy(hidden, weight, targets, 1.0, group, 1)[0].sum().backward()
    assert weight.grad.tolist() == [[1.0], [-1.0]]  # 512 x 1/256 x (1 - 1/2)


class LargestTensor(TorchDispatchMode):
    """The most elements any tensor had that an operation made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        self.elements = max(self.elements, *made, 0)
        return out


def test_no_tensor_is_larger_than_a_chunk_of_logits(group):
    hidden, weight, targets = inputs(96, 4, 50)
    with LargestTensor() as forward:
        chosen, entropy = log_probability_and_entropy(hidden, weight, targets, 1.0, group, 8)
    with LargestTensor() as backward:
        (chosen + entropy).sum().backward()
    assert forward.elements == backward.elements == 8 * 50
    with LargestTensor() as whole:
        naive(hidden, weight, targets, 1.0)
    assert whole.elements == 96 * 50


def test_nothing_of_the_size_of_the_logits_is_kept_for_the_backward_pass(group):
    hidden, weight, targets = inputs(96, 4, 50)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        log_probability_and_entropy(hidden, weight, targets, 1.0, group, 96)
    ours = {t.data_ptr() for t in (hidden, weight)}
    assert sum(t.numel() for t in kept if t.data_ptr() not in ours) == 4 * 96


def test_a_target_outside_of_the_vocabulary_is_impossible(group):
    hidden, weight, _ = inputs(3, 4, 5)
    chosen, _ = log_probability_and_entropy(hidden, weight, torch.tensor([-1, 2, 5]), 1.0, group, 2)
    assert chosen.isinf().tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": torch.zeros(4, dtype=torch.int64)}, r"found \[3, 4\], \[5, 4\] and \[4\]"),
        ({"weight": torch.zeros(5, 3)}, r"expected hidden \[T, h\]"),
        ({"hidden": torch.zeros(1, 3, 4)}, r"expected hidden \[T, h\]"),
        ({"weight": torch.zeros(5, 4).bfloat16()}, "both float32 or both bfloat16"),
        ({"temperature": 0.0}, "expected temperature > 0"),
        ({"chunk_tokens": 0}, "chunk_tokens >= 1"),
    ],
)
def test_what_does_not_fit_together_is_refused(group, change, message):
    hidden, weight, targets = inputs(3, 4, 5)
    arguments = {
        "hidden": hidden,
        "weight": weight,
        "targets": targets,
        "temperature": 1.0,
        "chunk_tokens": 2,
    }
    with pytest.raises(ValueError, match=message):
        log_probability_and_entropy(group=group, **{**arguments, **change})
