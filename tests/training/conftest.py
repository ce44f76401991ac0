"""Tests here import megatron in their own process: the platform is readied before."""

from engine.platform import accelerator

accelerator.prepare()
