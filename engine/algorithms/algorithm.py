"""Base class of the reinforcement-learning algorithms, which a configuration chooses by name.

An algorithm is one class in one file. Its fields are its options, its methods compute
advantages from rewards, token weights and the policy loss; :meth:`Algorithm.loss` puts them
together. ``table.py`` lists the known ones; one of your own is a module with a class
``ALGORITHM``, and is named in the configuration by the module's dotted name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pydantic import BaseModel, ConfigDict

from engine.algorithms.aggregation import weighted_only, weighted_sum
from engine.algorithms.kl import KlCoefficient, k3

if TYPE_CHECKING:
    from torch import Tensor

    from engine.algorithms.policy_loss import PolicyLoss


class LossRow(Protocol):
    """One packed row of T tokens; tensors are float32 [T], 0 outside responses."""

    @property
    def old_logp(self) -> Tensor | None:
        """Log-probabilities of the sampled tokens under the policy that sampled them."""

    @property
    def reference_logp(self) -> Tensor | None:
        """The same under the reference model; None where the algorithm uses none."""

    @property
    def advantages(self) -> Tensor:
        """Each sample's advantage, at each of its response tokens."""

    @property
    def weights(self) -> Tensor:
        """Each token's weight, of :meth:`Algorithm.token_weights`."""

    def sample_mean(self, values: Tensor) -> Tensor:
        """Return at each response token the mean over its sample's response tokens: [T] -> [T].

        Differentiable; 0 outside responses.
        """


@dataclass(frozen=True)
class BatchSizes:
    """Sizes of the whole rollout that is trained on, over all ranks."""

    samples: int
    tokens: int  # response tokens
    minibatches: int  # updates that share the rollout
    max_length: int  # the longest allowed response, in tokens


class Algorithm(BaseModel, ABC):
    """Advantages, token weights and loss of one algorithm; its fields are the options.

    Per-token tensors are [T] and label-aligned; only ``logp`` gets a gradient.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False
    )

    kl_coefficient: KlCoefficient = 0.0

    @property
    def uses_reference(self) -> bool:
        """True if the loss needs the reference model's log-probabilities."""
        return self.kl_coefficient > 0

    def shaped_rewards(self, rewards: Tensor, lengths: Tensor, max_length: int) -> Tensor:
        """Return the rewards [N] that advantages are made of; here as they are.

        Args:
            rewards: [N] float, one per sample.
            lengths: [N] integer, response tokens.
            max_length: the longest allowed response.
        """
        return rewards

    def accepts(self, rewards: Tensor) -> bool:
        """Return whether a group with these unshaped rewards [G] is trained on; here each is."""
        return True

    @abstractmethod
    def advantages(self, rewards: Tensor, groups: Tensor) -> Tensor:
        """Return each sample's advantage [N], of the whole rollout at once.

        Args:
            rewards: [N] float, shaped, finite.
            groups: [N] integer, the group each sample belongs to.
        Raises:
            RunError: a reward is NaN or infinite.
        """

    @abstractmethod
    def token_weights(self, lengths: Sequence[int], sizes: BatchSizes) -> list[float]:
        """Return one weight a sample, for each of its response tokens.

        Weights are relative to the whole rollout, so that the mean over minibatches of their losses
        is the loss of the rollout, however it is split.

        Args:
            lengths: response tokens of some samples.
            sizes: of the whole rollout.
        """

    @abstractmethod
    def policy_loss(
        self,
        logp: Tensor,
        old_logp: Tensor,
        advantages: Tensor,
        sample_mean: Callable[[Tensor], Tensor],
    ) -> PolicyLoss:
        """Return each token's policy loss before weighting; the tensors are 0 where weights are.

        Args:
            logp: [T] log-probabilities of the sampled tokens; gets the gradient.
            old_logp: [T] under the policy that sampled them.
            advantages: [T].
            sample_mean: :meth:`LossRow.sample_mean`.
        """

    def loss(self, logp: Tensor, entropy: Tensor, row: LossRow) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of one microbatch and its metrics.

            sum_t w_t * (policy_loss_t + kl_coefficient * k3_t)

        Args:
            logp: [T] log-probabilities of the sampled tokens under the policy.
            entropy: [T] of the policy's distributions, in nats.
            row: the rest. Tokens of weight 0 contribute nothing, whatever stands there.
        Returns:
            The scalar loss, and detached scalars: ``loss``, ``policy_loss``, ``ratio``,
            ``clip_fraction`` (share of tokens whose gradient the bounds changed), ``entropy``,
            ``weight`` (the sum of the weights) and, with a reference, ``kl``. All of them are sums
            over tokens of weight * value: those of a minibatch are the sums of its microbatches'
            and ranks'. ``means_over_tokens`` makes means of them.
        """
        weights = row.weights
        assert row.old_logp is not None
        logp, old_logp, advantages = weighted_only(weights, logp, row.old_logp, row.advantages)
        policy = self.policy_loss(logp, old_logp, advantages, row.sample_mean)
        per_token, metrics = policy.loss, {}
        if self.uses_reference:
            assert row.reference_logp is not None
            (reference_logp,) = weighted_only(weights, row.reference_logp)
            kl = k3(logp, reference_logp)
            per_token = per_token + self.kl_coefficient * kl
            metrics["kl"] = weighted_sum(kl.detach(), weights)
        loss = weighted_sum(per_token, weights)
        return loss, {
            "loss": loss.detach(),
            "policy_loss": weighted_sum(policy.loss.detach(), weights),
            "ratio": weighted_sum(policy.ratio, weights),
            "clip_fraction": weighted_sum(policy.clipped.to(weights.dtype), weights),
            "entropy": weighted_sum(entropy.detach(), weights),
            "weight": weights.sum(),
            **metrics,
        }
