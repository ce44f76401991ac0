"""Keep parameters in host memory, and copy them to the device while they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from engine.platform import accelerator


class HostedParameters:
    """Parameters of modules that are kept in host memory, except while they are needed.

    The host memory is page-locked where there is a GPU, so that copies to it run beside
    computation. Buffers, which are small, stay on the device.
    """

    def __init__(self, modules: Sequence[torch.nn.Module]) -> None:
        """Move the parameters to host memory."""
        self._modules = [inner for module in modules for inner in module.modules()]
        self._parameters = [parameter for module in modules for parameter in module.parameters()]
        for parameter in self._parameters:
            home = parameter.data.cpu()
            parameter.data = home.pin_memory() if accelerator.has_gpu() else home

    @contextmanager
    def on_device(self, device: torch.device | str | int) -> Iterator[None]:
        """Copy the parameters to ``device`` for the block; changes made in it are lost.

        Their device memory is free again afterwards.
        """
        homes = [parameter.data for parameter in self._parameters]
        try:
            for parameter in self._parameters:
                parameter.data = parameter.data.to(device, non_blocking=True)
            yield
        finally:
            for parameter, home in zip(self._parameters, homes, strict=True):
                parameter.data = home
            for module in self._modules:  # Transformer Engine's copies in FP8; it makes them anew
                getattr(module, "_fp8_workspaces", {}).clear()
