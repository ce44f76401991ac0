"""Layers for the path without Transformer Engine: attention, norm, and the spec that uses them."""
