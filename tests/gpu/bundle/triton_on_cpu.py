"""What a CPU can do with Triton's kernels: interpret them, or compile them for a Hopper GPU.

Call :func:`interpret` or :func:`compile_only` before anything imports triton.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from engine.platform import cuda_on_cpu


def interpret() -> None:
    """Have every kernel interpreted: numpy computes what it says, one program after another.

    Triton 3.6's interpreter cannot tune settings without a GPU, and numpy 2.5 refuses to take its
    scalars, arrays of one number, for indices.
    """
    os.environ["TRITON_INTERPRET"] = "1"
    import triton
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patch_with_index(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patch_with_index
    triton.autotune = lambda configs, **_: lambda kernel: Settings(kernel, configs[:1])
    _let_tensors_pass_for_cuda()


def compile_only() -> dict[str, int]:
    """Have every kernel compiled to machine code at its launch, and not run.

    Returns:
        Name of each kernel that was launched -> how often; filled as it happens.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver, jit

    class Hopper:
        """As much of a driver as a compiler needs."""

        def get_current_target(self) -> GPUTarget:
            return GPUTarget("cuda", 90, 32)

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, device: int) -> int:
            return 0

    launched: dict[str, int] = {}
    run = jit.JITFunction.run

    def compile_it(kernel: Any, *given: Any, warmup: bool, **named: Any) -> Any:
        launched[kernel.fn.__qualname__] = launched.get(kernel.fn.__qualname__, 0) + 1
        return run(kernel, *given, warmup=True, **named)

    driver.set_active(Hopper())
    jit.JITFunction.run = compile_it
    triton.autotune = lambda configs, **_: lambda kernel: Settings(kernel, configs)
    _let_tensors_pass_for_cuda()
    return launched


class Settings:
    """A kernel that is launched with each of some settings, where a GPU would look for the best."""

    def __init__(self, kernel: Any, configs: list[Any]) -> None:
        self._kernel, self._configs = kernel, configs

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        def launch(*given: Any, **named: Any) -> None:
            for config in self._configs:
                self._kernel[grid](*given, **named, **config.all_kwargs())

        return launch


def _let_tensors_pass_for_cuda() -> None:
    cuda_on_cpu.install()
    torch.Tensor.is_cuda = property(lambda self: True)
