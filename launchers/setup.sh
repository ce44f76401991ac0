#!/usr/bin/env bash
# Make the environment that everything else runs in. See usage below.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: bash launchers/setup.sh [cpu|gpu] [test]

Makes a virtual environment, or brings one up to date, and installs the engine into it from this
repository. Does nothing where it is up to date already.

  cpu, gpu   which machine this is; default: gpu where nvidia-smi is found, else cpu
  test       also what the tests and checkers need
  R1_VENV    the environment's folder, from this repository's root; default: .venv

  R1_TORCH_INDEX
              address of a package index with CPU builds of torch, where pip's own has none; without
              either, the CUDA build is installed, which is much larger

Needs Python 3.11 or newer and an index of Python packages.
TEXT
}

device=cpu
! command -v nvidia-smi > /dev/null || device=gpu
tests=
for argument in "$@"; do
    case $argument in
        cpu | gpu) device=$argument ;;
        test) tests=test ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=${R1_VENV:-.venv}
python=$venv/bin/python
locks=(launchers/requirements-cpu.txt ${tests:+launchers/requirements-test.txt})
torch=$(grep '^torch==' launchers/requirements-cpu.txt)

say() { printf 'setup: %s\n' "$*" >&2; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

find_python() {
    local candidate
    for candidate in python3.11 python3.12 python3.13 python3 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
            command -v "$candidate"
            return
        fi
    done
    fail "Python 3.11 or newer is needed and none is on PATH (found: $(python3 --version 2>&1 || true))"
}

# What an up-to-date environment was made from: a change of any of it means installing again.
inputs_digest() {
    {
        echo "$device $tests $PWD"
        "$python" -V
        cat pyproject.toml launchers/setup.sh launchers/requirements-*.txt
    } | "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}

# pip says nothing but errors: neither progress bars in a log nor notes on this machine's indexes.
pip() { "$python" -m pip --disable-pip-version-check -qq "$@"; }

install_torch_cpu() {
    local cpu_build=$torch+cpu
    pip install --no-deps --no-compile "$cpu_build" \
        ${R1_TORCH_INDEX:+--extra-index-url "$R1_TORCH_INDEX"} 2> /dev/null && return
    say "no CPU build of torch is within reach: installing the CUDA build, which is much larger"
    pip install --no-compile "$torch"
}

# Two pips at a time: one alone keeps one core busy and the network idle. Nothing is built here and
# no dependency is followed, so they cannot meet in a package.
install_cpu() {
    local half=$venv/.r1-half
    grep -hv -e '^#' -e '^torch==' "${locks[@]}" | split -n r/2 - "$half."
    trap 'kill $(jobs -p) 2> /dev/null || true' EXIT # a background job does not see Ctrl-C
    say "installing $(cat "$half".a? | wc -l) packages and torch, about 2 GB on disk"
    pip install --no-deps --no-compile --only-binary=:all: -r "$half.aa" &
    install_torch_cpu
    pip install --no-deps --no-compile --only-binary=:all: -r "$half.ab"
    wait $! || fail "pip could not install the packages of ${locks[*]}; its message is above"
    rm -f "$half".a?
    pip install --no-deps --no-compile --no-build-isolation -e .
    [[ -z $tests ]] || pip install --no-deps --no-compile --only-binary=:all: --upgrade \
        --target "$venv/triton" -r launchers/requirements-triton.txt
    say "compiling to bytecode"
    # Importing from source takes longer than all else that a process does when it starts. What no
    # process imports is left out.
    "$python" -m compileall -qq -j 0 -x '/(tests?|testing|multimodal_gen|pip)/|/transformers/models/' \
        "$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" || true
}

# Transformer Engine's extension compiles against the torch that is there (minutes; needs nvcc).
install_gpu() {
    say "installing the GPU environment: several GB, and Transformer Engine is compiled"
    pip install "$torch" setuptools wheel ninja pybind11
    NVTE_FRAMEWORK=pytorch pip install --no-build-isolation -e ".[gpu${tests:+,test}]"
}

if [[ ! -x $python ]]; then
    base=$(find_python)
    say "making $venv with $("$base" -V)"
    "$base" -m venv "$venv" ||
        fail "$base cannot make a virtual environment in $venv (on Debian: apt-get install python3-venv)"
fi
stamp=$venv/.r1-setup
if [[ $(cat "$stamp" 2> /dev/null) == "$(inputs_digest)" ]]; then
    exit 0
fi
rm -f "$stamp"
"install_$device"
inputs_digest > "$stamp"
say "done after $SECONDS s: $venv is ready for $device${tests:+ and tests}"
