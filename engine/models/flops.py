"""Floating-point operations of a model, from its architecture and the lengths of its samples.

These are model FLOPs, the numerator of MFU (PaLM, arXiv 2204.02311, appendix B): the matrix
products that the mathematics asks for, a multiplication and an addition counted as two. Not
counted: whatever an implementation adds (activation recomputation, masked attention scores,
padding) and what is no matrix product (norms, softmax, rotary embedding, looking up embeddings).
Unlike PaLM's, attention is counted causally: a token attends to itself and to what stands before it
in its own sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Architecture = Mapping[str, Any]
"""megatron's names for a model's sizes: :attr:`Family.architecture`, or ``vars()`` of a
``TransformerConfig``."""

BACKWARD_PER_FORWARD = 2
"""A product C = A B has two in its backward pass: dA = dC B^T and dB = A^T dC."""


@dataclass(frozen=True)
class Flops:
    """FLOPs of one pass over some samples, by part of the model."""

    attention_projections: int
    attention_scores: int
    feed_forward: int
    """Dense layers and experts, shared experts and routers included."""
    output_layer: int
    multi_token_prediction: int
    """All parts of all depths."""

    @property
    def total(self) -> int:
        """Sum of the parts."""
        return sum(asdict(self).values())

    @property
    def main(self) -> int:
        """Without the multi-token prediction head, which passes without gradients leave out."""
        return self.total - self.multi_token_prediction


def forward_flops(
    architecture: Architecture, vocabulary: int, sample_lengths: Sequence[int]
) -> Flops:
    """FLOPs of one forward pass; :func:`training_flops` has the backward pass too.

    Args:
        architecture: of the whole model, whatever the layout: divide by the number of processes.
        vocabulary: rows of the output layer.
        sample_lengths: positions of each sample (P + R - 1 for P prompt and R response tokens).
            Packing changes nothing: there is no attention between samples.
    """
    tokens = sum(sample_lengths)
    pairs = sum(length * (length + 1) // 2 for length in sample_lengths)
    layers, depths = architecture["num_layers"], architecture.get("mtp_num_layers") or 0
    feed_forward = [_feed_forward(architecture, sparse) for sparse in sparse_layers(architecture)]
    projections, scores = _projections(architecture), _scores(architecture)
    head = 2 * architecture["hidden_size"] * vocabulary
    # A depth joins two hidden states into one, runs a layer like the last, and predicts.
    join = 2 * 2 * architecture["hidden_size"] ** 2
    depth = tokens * (join + projections + feed_forward[-1] + head) + pairs * scores
    return Flops(
        attention_projections=tokens * layers * projections,
        attention_scores=pairs * layers * scores,
        feed_forward=tokens * sum(feed_forward),
        output_layer=tokens * head,
        multi_token_prediction=depths * depth,
    )


def training_flops(
    architecture: Architecture, vocabulary: int, sample_lengths: Sequence[int]
) -> int:
    """FLOPs of a forward and backward pass, the prediction head included where there is one.

    Arguments as for :func:`forward_flops`; ``mtp_num_layers`` None or 0 leaves the head out.
    """
    forward = forward_flops(architecture, vocabulary, sample_lengths).total
    return (1 + BACKWARD_PER_FORWARD) * forward


def _projections(architecture: Architecture) -> int:
    """Per token and layer."""
    hidden, heads = architecture["hidden_size"], architecture["num_attention_heads"]
    query, value = _head_sizes(architecture)
    if not architecture.get("multi_latent_attention"):
        groups = architecture.get("num_query_groups") or heads
        return 2 * hidden * (heads * query + groups * (query + value) + heads * value)
    query_rank, rank = architecture.get("q_lora_rank"), architecture["kv_lora_rank"]
    rope = architecture["qk_pos_emb_head_dim"]
    queries = query_rank * (hidden + heads * query) if query_rank else hidden * heads * query
    latent = hidden * (rank + rope) + rank * heads * (query - rope + value)
    return 2 * (queries + latent + heads * value * hidden)


def _scores(architecture: Architecture) -> int:
    """Per layer and pair of tokens of which one attends to the other."""
    return 2 * architecture["num_attention_heads"] * sum(_head_sizes(architecture))


def _head_sizes(architecture: Architecture) -> tuple[int, int]:
    """Of queries (and keys), and of values."""
    if architecture.get("multi_latent_attention"):
        query = architecture["qk_head_dim"] + architecture["qk_pos_emb_head_dim"]
        return query, architecture["v_head_dim"]
    hidden, heads = architecture["hidden_size"], architecture["num_attention_heads"]
    size = architecture.get("kv_channels") or hidden // heads
    return size, size


def _feed_forward(architecture: Architecture, sparse: bool) -> int:
    """Per token and layer: three matrices of a SwiGLU for each expert that the token visits."""
    hidden, dense = architecture["hidden_size"], architecture["ffn_hidden_size"]
    if not sparse:
        return 2 * 3 * hidden * dense
    routed = architecture["moe_router_topk"] * (architecture.get("moe_ffn_hidden_size") or dense)
    shared = architecture.get("moe_shared_expert_intermediate_size") or 0
    return 2 * hidden * (3 * (routed + shared) + architecture["num_moe_experts"])


def sparse_layers(architecture: Architecture) -> list[bool]:
    """Which layers have experts: megatron's ``moe_layer_freq``, a period or one number a layer."""
    layers, pattern = architecture["num_layers"], architecture.get("moe_layer_freq", 1)
    if not architecture.get("num_moe_experts"):
        return [False] * layers
    if isinstance(pattern, int):
        return [layer % pattern == 0 for layer in range(layers)]
    return [bool(sparse) for sparse in pattern]
