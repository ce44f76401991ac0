"""The trained network: megatron's GPT model up to the final hidden states.

What they become is a head's business (``engine.training.heads``), and logits are never made here.
At 32k tokens and 150k words a row's logits are the largest tensor of the whole step, and all that
training wants of them are two numbers a token, log-probability and entropy:
``engine.training.heads.token_logprobs`` computes those from hidden states, chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from megatron.core.models.gpt import GPTModel
from torch import Tensor

from engine.models.mtp import split_over_tensor_ranks
from engine.models.score_layer import ScoreLayer

MtpMode = Literal["off", "joint", "isolated"]


class GPTBackbone(GPTModel):
    """One pipeline stage of the model.

    Attributes:
        is_sequence_classifier: whether the model, of which this is one stage, has in place of its
            output layer one that gives a single number (``engine.models.sequence_classifier``).
        score: that layer, on the last stage.
        mtp_mode: what a training pass does with the multi-token prediction head, if there is one:
            ``off`` leaves it out; ``joint`` is DeepSeek-V3's (arXiv 2412.19437, section 2.2), its
            loss teaches the trunk, too; ``isolated`` lets its loss reach the head alone, so that
            it follows the policy without pulling on it. Passes without gradients leave it out.
        fetch_parameters: set where parameters may still be on their way from other ranks
            (``overlap_param_gather``): waits for them. Called before weights are read in another
            way than by the forward pass of the module that owns them; every data-parallel rank
            has to read them at the same point.
    """

    mtp_mode: MtpMode = "off"
    fetch_parameters: Callable[[], None] | None = None
    post_process: bool

    def __init__(self, *args: Any, score_deviation: float | None = None, **passed: Any) -> None:
        """As megatron's.

        Args:
            score_deviation: of the fresh weights of a sequence classification model's last layer;
                None for a language model.
        """
        super().__init__(*args, **passed)
        self.is_sequence_classifier = score_deviation is not None
        if score_deviation is not None and self.post_process:
            del self.output_layer
            self.score = ScoreLayer(self.config, score_deviation)
            # Without this LanguageModule.sharded_state_dict looks for an output layer.
            self.post_process = False

    def wait_for_parameters(self) -> None:
        """Bring every parameter up to date."""
        if self.fetch_parameters is not None:
            self.fetch_parameters()

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As any module's, of up-to-date parameters."""
        self.wait_for_parameters()
        state: dict[str, Any] = super().state_dict(*args, **kwargs)
        return state

    def sharded_state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As any megatron module's, of up-to-date parameters."""
        self.wait_for_parameters()
        state: dict[str, Any] = super().sharded_state_dict(*args, **kwargs)
        return state

    def _preprocess(
        self, *args: Any, padding_mask: Tensor | None = None, **passed: Any
    ) -> tuple[Any, ...]:
        """As megatron's; metadata of tokens take the way of its padding mask.

        gpt_model.py:300-317 splits a mask over tensor-parallel ranks on the first stage only.
        """
        found = super()._preprocess(*args, padding_mask=None, **passed)
        if padding_mask is not None and self.config.sequence_parallel:
            padding_mask = split_over_tensor_ranks(padding_mask)
        return (*found[:5], padding_mask, *found[6:])

    def _postprocess(
        self,
        hidden_states: Tensor,
        input_ids: Tensor,
        position_ids: Tensor,
        labels: Tensor | None,
        rotary_pos_emb: Tensor | None,
        rotary_pos_cos: Tensor | None,
        rotary_pos_sin: Tensor | None,
        **passed: Any,
    ) -> Tensor:
        """End at hidden states.

        Returns:
            [T', 1, h], T' this rank's part of the row (tokens / cp / tp); with the prediction head
            [(1 + depths) * T', 1, h], one depth after the other.
        """
        if self.depths() == 1:
            return hidden_states
        isolated = self.mtp_mode == "isolated"
        depths: Tensor = self.mtp(
            input_ids=input_ids,
            position_ids=position_ids,
            # A recomputed layer without any input that wants a gradient would give none to its own
            # parameters.
            hidden_states=hidden_states.detach().requires_grad_() if isolated else hidden_states,
            attention_mask=None,
            rotary_pos_emb=rotary_pos_emb,
            rotary_pos_cos=rotary_pos_cos,
            rotary_pos_sin=rotary_pos_sin,
            packed_seq_params=passed.get("packed_seq_params"),
            sequence_len_offset=passed.get("sequence_len_offset"),
            embedding=self._embed_detached if isolated else self.embedding,
        )
        if not isolated:
            return depths
        return torch.cat([hidden_states, depths[hidden_states.shape[0] :]])

    def depths(self) -> int:
        """How many hidden states a position gets: 1, and one for each depth of prediction."""
        if not self.mtp_process or self.mtp_mode == "off" or not torch.is_grad_enabled():
            return 1
        return 1 + int(self.config.mtp_num_layers)

    def head_weight(self) -> Tensor:
        """This rank's rows of the output layer, [V / tp, h]: its own, or the tied embedding."""
        self.wait_for_parameters()  # no module's forward pass reads these
        if self.share_embeddings_and_output_weights:
            shared: Tensor = self.shared_embedding_or_output_weight()
            return shared
        weight: Tensor = self.output_layer.weight
        return weight

    def _embed_detached(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        embedded: Tensor = self.embedding(input_ids=input_ids, position_ids=position_ids)
        return embedded.detach()
