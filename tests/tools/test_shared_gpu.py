"""Ranks that share a GPU: NCCL takes them for ranks on different machines."""

from __future__ import annotations

from tools.benchmarks.shared_gpu import nccl_settings

KNOWN = {
    "NCCL_HOSTID",
    "NCCL_NET",
    "NCCL_SOCKET_IFNAME",
    "NCCL_NVLS_ENABLE",
    "NCCL_MNNVL_ENABLE",
    "NCCL_MAX_CTAS",
}
"""What NCCL 2.28.9 reads; it ignores any other variable without a word."""


def test_each_rank_names_a_host_of_its_own_and_nothing_else_differs():
    ranks = [nccl_settings(rank) for rank in range(8)]
    assert len({settings.pop("NCCL_HOSTID") for settings in ranks}) == 8
    assert all(settings == ranks[0] for settings in ranks)


def test_every_setting_is_one_that_nccl_knows():
    assert set(nccl_settings(0)) <= KNOWN
