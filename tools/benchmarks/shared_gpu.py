"""Settings under which several ranks may share one GPU.

NCCL refuses two ranks on one device ("Duplicate GPU detected"). It tells devices apart by host and
bus number, and a rank may name its host itself (NCCL_HOSTID, in NCCL 2.28.9). Ranks that seem to
be on different hosts communicate through sockets, here through the loopback device.

NCCL's own kernels run side by side, slowly: for tests only. gloo does not help: it moves CUDA
tensors only in some collectives, neither point to point (pipeline stages) nor in reduce_scatter.
MPS lets kernels of several processes run at a time, but NCCL refuses all the same.
"""

from __future__ import annotations


def nccl_settings(rank: int) -> dict[str, str]:
    """Return environment variables for ``rank``, to be set before its first communication."""
    return {
        "NCCL_HOSTID": f"rank-{rank}",
        "NCCL_NET": "Socket",
        "NCCL_SOCKET_IFNAME": "lo",
        "NCCL_NVLS_ENABLE": "0",
        "NCCL_MNNVL_ENABLE": "0",
        "NCCL_MAX_CTAS": "2",  # a rank's kernels wait on the GPU: leave room for the others'
    }
