"""Layers for the path without Transformer Engine: attention, norm, and the specs that use them."""

from engine.models.torch_layers.norm import RMSNorm
from engine.models.torch_layers.replicated_linear import accepted_by_latent_attention
from engine.models.torch_layers.spec import layer_specs, mtp_layer_spec

__all__ = ["RMSNorm", "accepted_by_latent_attention", "layer_specs", "mtp_layer_spec"]
