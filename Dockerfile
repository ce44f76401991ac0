# The GPU image: CUDA 13, torch, Transformer Engine, Apex, SGLang, DALI and the engine.
#
#   docker build -t r1-engine .
#   docker run --gpus all --ipc host -v /data:/data r1-engine \
#       python -m recipes.zero CONFIG --check
#
# NOT BUILT YET: the machine it was written on has no Docker. Versions and build
# switches were read from the packages' own metadata and sources.

# torch 2.13.0's wheel brings CUDA 13.0.3 libraries; extensions are compiled by the same toolkit. The
# image's cuDNN is for their headers: at run time Transformer Engine gets torch's, since parts of two
# versions cannot be mixed (engine/platform/cudnn.py).
FROM nvidia/cuda:13.0.3-cudnn-devel-ubuntu24.04

# ibverbs, rdma: NCCL between machines. numactl: binding ranks. bubblewrap: the sandbox in which
# programs that a model wrote are run.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        build-essential bubblewrap ca-certificates git ibverbs-providers libibverbs1 libnuma1 \
        librdmacm1 ninja-build numactl python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/r1-engine
ENV R1_VENV=/opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1

# Hopper only by default: every further architecture adds minutes and hundreds of MB.
ARG CUDA_ARCHITECTURES=9.0
ENV TORCH_CUDA_ARCH_LIST=$CUDA_ARCHITECTURES
# nvcc takes up to 4 GB per job.
ARG MAX_JOBS=8
ENV MAX_JOBS=$MAX_JOBS

# Only what decides the environment is copied first, so that a change of the engine's code does not
# install everything again.
COPY pyproject.toml LICENSE README.md ./
COPY launchers/setup.sh launchers/requirements-cpu.txt launchers/requirements-test.txt launchers/
RUN for package in engine recipes launchers tools; do \
        mkdir -p $package && touch $package/__init__.py; \
    done \
    && bash launchers/setup.sh gpu

# Apex's newest tag (25.09) predates the repairs that C++20 needs; this commit of July 2026 has them. Megatron uses amp_C (gradient norm and clipping in one kernel) and
# fused_weight_gradient_mlp_cuda (weight gradients added up inside the matrix product).
ARG APEX_COMMIT=6424da3b4faa6c8f062da4a48c424fff3f02d42d
RUN git clone --filter=blob:none https://github.com/NVIDIA/apex /tmp/apex \
    && git -C /tmp/apex checkout --quiet "$APEX_COMMIT" \
    && APEX_CPP_EXT=1 APEX_CUDA_EXT=1 \
        python -m pip install --no-build-isolation --no-deps /tmp/apex \
    && rm -rf /tmp/apex

COPY . .
CMD ["bash"]
