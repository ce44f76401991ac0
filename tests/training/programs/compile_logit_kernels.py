"""Compile the kernels over logits for a Hopper GPU, which need not be here; print their sizes."""

from __future__ import annotations

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from engine.training import logit_kernels

HOPPER = GPUTarget("cuda", 90, 32)
SIZES = {"WORDS": 151936, "BLOCK": 4096}
ROW = {"products": "*fp32", "column": "*i64", "tokens": "i32", "stride": "i32"}
KERNELS = {
    logit_kernels._statistics_of_rows: {"statistics": "*fp32"},
    logit_kernels._gradient_of_rows: {
        "out": "*bf16",
        "distribution": "*fp32",
        "grad_chosen": "*fp32",
        "grad_entropy": "*fp32",
        "chosen_stride": "i32",
        "entropy_stride": "i32",
    },
}

for kernel, arguments in KERNELS.items():
    signature = {**ROW, "temperature": "fp32", **arguments, **dict.fromkeys(SIZES, "constexpr")}
    ordered = {name: signature[name] for name in kernel.arg_names}
    source = ASTSource(kernel, ordered, constexprs=SIZES)
    compiled = triton.compile(source, target=HOPPER, options={"num_warps": 8})
    print(kernel.__name__, len(compiled.asm["cubin"]))
