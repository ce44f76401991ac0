"""Count the floating-point operations of a model, from its sizes and the lengths of its samples.

These are model FLOPs, the numerator of MFU (PaLM, arXiv 2204.02311, appendix B): the matrix
products that the mathematics asks for, a multiplication and an addition counted as two. Not
counted: whatever an implementation adds (activation recomputation, masked attention scores,
padding) and what is no matrix product (norms, softmax, rotary embedding, looking up embeddings).
Unlike PaLM's, attention is counted causally: a token attends to itself and to what stands before it
in its own sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from engine.config.model_sizes import ModelSizes

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
        """FLOPs of all parts."""
        return sum(asdict(self).values())

    @property
    def main(self) -> int:
        """FLOPs without the prediction head, which passes without gradients leave out."""
        return self.total - self.multi_token_prediction


def forward_flops(sizes: ModelSizes, sample_lengths: Sequence[int]) -> Flops:
    """Return the FLOPs of one forward pass; :func:`training_flops` has the backward pass too.

    Args:
        sizes: of the whole model, whatever the layout: divide by the number of processes.
        sample_lengths: positions of each sample (P + R - 1 for P prompt and R response tokens).
            Packing changes nothing: there is no attention between samples.
    """
    tokens = sum(sample_lengths)
    pairs = sum(length * (length + 1) // 2 for length in sample_lengths)
    feed_forward = [_feed_forward(sizes, layer) for layer in range(sizes.layers)]
    projections, scores = _projections(sizes), _scores(sizes)
    head = 2 * sizes.hidden * sizes.vocabulary
    # A depth joins two hidden states into one, runs a layer like the last, and predicts.
    join = 2 * sizes.prediction_columns * sizes.hidden
    depth = tokens * (join + projections + feed_forward[-1] + head) + pairs * scores
    return Flops(
        attention_projections=tokens * sizes.layers * projections,
        attention_scores=pairs * sizes.layers * scores,
        feed_forward=tokens * sum(feed_forward),
        output_layer=tokens * head,
        multi_token_prediction=sizes.mtp * depth,
    )


def training_flops(sizes: ModelSizes, sample_lengths: Sequence[int]) -> int:
    """Return the FLOPs of a forward and backward pass, a prediction head included.

    Arguments as for :func:`forward_flops`; ``mtp`` 0 leaves the prediction head out.
    """
    return (1 + BACKWARD_PER_FORWARD) * forward_flops(sizes, sample_lengths).total


def _projections(sizes: ModelSizes) -> int:
    """Return the FLOPs of the attention's linear layers, per token and layer."""
    output = sizes.value_columns * sizes.hidden
    if not sizes.latent:
        return 2 * (sizes.hidden * sizes.qkv_columns + output)
    if sizes.query_rank:
        queries = sizes.query_rank * (sizes.hidden + sizes.query_columns)
    else:
        queries = sizes.hidden * sizes.query_columns
    down = sizes.hidden * sizes.compressed_columns
    up = sizes.key_value_rank * sizes.key_value_columns
    return 2 * (queries + down + up + output)


def _scores(sizes: ModelSizes) -> int:
    """Return those of the attention, per layer and pair of tokens of which one sees the other."""
    return 2 * (sizes.query_columns + sizes.value_columns)


def _feed_forward(sizes: ModelSizes, layer: int) -> int:
    """Return those of ``layer``, per token: SwiGLUs have three matrices, of each expert visited."""
    if not sizes.is_sparse(layer):
        return 2 * 3 * sizes.hidden * sizes.columns
    visited = sizes.chosen_experts * sizes.expert_columns + sizes.shared_columns
    return 2 * sizes.hidden * (3 * visited + sizes.experts)
