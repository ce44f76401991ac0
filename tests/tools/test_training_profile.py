"""The profile of a step: each kernel's group by its name; kernels that overlap count once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.benchmarks.training.kernel_groups import OTHER, group_of
from tools.benchmarks.training.profile import TOP, Kernel, Profile, covered, lines

SEEN = {
    "nvjet_sm90_tss_320x128_64x3_1x2_h_bz_coopB_TNT": "matrix products",
    "nvjet_sm90_qqtst_128x128_128x6_1x2_h_bz_coopA_algo2_Ablk128_Bvec128_TNN": "matrix products",
    "_ZN7cutlass13device_kernelINS_4gemm6kernel13GemmUniversalINS1": "matrix products",
    "cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16_knob_26": "attention",
    "void transformer_engine::(anonymous)::block_scaled_1d_cast_transpose_kernel<": "quantisation",
    "void multi_tensor_apply_kernel<TensorListMetadata<4, false>, transformer_engine": "optimizer",
    "void multi_tensor_apply_kernel<..., multi_tensor_l2norm::L2NormFunctor<float>": "optimizer",
    "_sort_chunks_by_map_kernel": "permutation",
    "_unpermute_kernel": "permutation",
    "_gradient_of_rows": "log-probabilities",
    "_statistics_of_rows": "log-probabilities",
    "void transformer_engine::normalization::rmsnorm_bwd_finalize_general_kernel": "norms",
    "void transformer_engine::fused_rope_backward_kernel<__nv_bfloat16>": "rotary embedding",
    "void at::native::sbtopk::gatherTopK<float, unsigned int, 2, false>": "permutation",
    "Memcpy DtoD (Device -> Device)": "copies",
    "ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)": "communication",
    "triton_poi_fused__to_copy_mul_silu_split_0": "elementwise and sums",
    "aten::mm": "matrix products",
    "aten::_scaled_dot_product_flash_attention_for_cpu": "attention",
    "what nobody knows": OTHER,
}
"""Names that a profile of an H100 or of a CPU had."""


@pytest.mark.parametrize("name", SEEN)
def test_a_kernels_group(name: str) -> None:
    assert group_of(name) == SEEN[name]


def test_overlapping_intervals_count_once() -> None:
    assert covered([(0, 2), (1, 3), (5, 6), (5, 5.5)]) == 4
    assert covered([]) == 0


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20)), max_size=8))
def test_the_union_is_the_number_of_covered_points(drawn: list[tuple[int, int]]) -> None:
    intervals = [(start, start + length) for start, length in drawn]
    points = {point for start, end in intervals for point in range(start, end)}
    assert covered(intervals) == len(points)


def test_groups_add_up_and_the_longest_comes_first() -> None:
    kernels = [Kernel(f"nvjet_{n}", 0.001 * n, 1) for n in range(30, 0, -1)]
    kernels.append(Kernel("_permute_kernel", 0.002, 4))
    profile = Profile(1.0, 0.5, tuple(kernels))
    assert profile.groups() == pytest.approx({"matrix products": 0.465, "permutation": 0.002})
    said = lines("baseline", profile)
    assert "kernels ran in 50% of it" in said[0]
    assert said[1].split() == ["matrix", "products", "465.0", "ms", "99.6%"]
    assert len(said) == 1 + 2 + 1 + TOP and said[4].endswith("nvjet_30")
