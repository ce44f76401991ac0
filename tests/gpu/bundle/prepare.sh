#!/usr/bin/env bash
# Prepare what tests/gpu needs on a GPU machine without a network: see --help.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: bash tests/gpu/bundle/prepare.sh [FOLDER] [STEP ...]

Prepares, on a machine with a network and no GPU, what tests/gpu needs on a GPU machine that has
torch, none of our other packages and no network. The result is FOLDER/loads. Copy any of the
folders in it (each below 60 MiB) to the same place on the GPU machine, and run on_machine.sh there:
its --help goes on from here. What is done already is not done again, so a call may be interrupted.

  FOLDER   default: .gpu-bundle; a name with a slash or a leading dot

Steps; by default twin te check pack. A later call adds more: prepare.sh sglang check pack

  twin     an environment with the GPU machine's versions, on which all else is compiled and checked
  te       Transformer Engine: its library for one architecture, its torch extension compiled
  dali     DALI for one architecture, for the loaders' tests
  sglang   SGLang and its kernels for one architecture, for a server beside the trainer
  check    all that can be tried without a GPU, of what was made
  pack     FOLDER/loads, of what was made

Environment variables:

  R1_PYTHON   a Python 3.12 with its headers; default: the first that is found
  R1_COMPILERS     compilers at a time; default: one for each core
  R1_ALL_ARCHITECTURES
              not empty: leave Transformer Engine's library as it is; about three loads, not one

Needs gcc, g++, make, binutils, xz, a network and 12 GB of disk; check after sglang also needs nvcc,
of CUDA_HOME or /usr/local/cuda*.
TEXT
}

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
root=$(cd -- "$here/../../.." && pwd)
folder='' steps=()
for argument in "$@"; do
    case $argument in
        -h | --help) usage; exit 0 ;;
        twin | te | dali | sglang | check | pack) steps+=("$argument") ;;
        */* | .*)
            [[ -z $folder ]] || { usage >&2; exit 2; }
            folder=$argument
            ;;
        *)
            printf 'error: there is no step %s\n\n' "$argument" >&2
            usage >&2
            exit 2
            ;;
    esac
done
((${#steps[@]})) || steps=(twin te check pack)
work=$(realpath -m -- "${folder:-$root/.gpu-bundle}")
python=$work/twin/bin/python

say() { printf 'prepare: %s\n' "$*" >&2; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# pip says nothing but errors: neither progress bars in a log nor notes on this machine's indexes.
pip() { "$python" -m pip --disable-pip-version-check -qq "$@"; }

# serves PYTHON: it runs (a name on PATH may be a switch between versions that are not chosen)
serves() {
    "$1" -c '
import ensurepip, pathlib, sys, sysconfig
there = pathlib.Path(sysconfig.get_path("include"), "Python.h").exists()
sys.exit(sys.version_info[:2] != (3, 12) or not there)' 2> /dev/null
}

find_python() {
    local version candidate candidates=(python3.12 python3 python)
    if [[ -n ${R1_PYTHON:-} ]]; then
        serves "$R1_PYTHON" || fail "R1_PYTHON: $R1_PYTHON is no Python 3.12 with pip and headers"
        echo "$R1_PYTHON"
        return
    fi
    for version in $(pyenv versions --bare 2> /dev/null | grep '^3\.12'); do
        candidates+=("$(PYENV_VERSION=$version pyenv which python3.12 2> /dev/null)")
    done
    for candidate in "${candidates[@]}"; do
        if serves "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.12 with pip and headers is found: name one in R1_PYTHON"
}

# once NAME FILE ...: step make_NAME, unless it was made from the same files in the same way
once() {
    local name=$1 begun=$SECONDS digest
    shift
    digest=$(
        {
            declare -f "make_$name" download install
            echo "${R1_ALL_ARCHITECTURES:-}"
            cat "$@"
        } | sha256sum
    )
    [[ $(cat "$work/.$name" 2> /dev/null) != "$digest" ]] || return 0
    say "$name"
    rm -f "$work/.$name"
    "make_$name"
    printf '%s\n' "$digest" > "$work/.$name"
    say "$name: $((SECONDS - begun)) s"
}

# download LIST: wheels for the GPU machine's Python
download() { pip download --no-deps --only-binary=:all: -d wheels -r "$here/lists/$1.txt"; }

# install LIST FOLDER: what LIST names, and nothing else
install() {
    rm -rf "$2"
    pip install --no-index --find-links wheels --no-deps --no-compile --target "$2" \
        -r "$here/lists/$1.txt"
}

make_twin() {
    local base
    if [[ ! -x $python ]]; then
        base=$(find_python)
        "$base" -m venv twin
    fi
    pip install -r "$here/lists/twin.txt"
}

make_te() {
    local version build
    version=$(sed -n 's/^transformer_engine==//p' "$here/lists/carried.txt")
    download carried
    install carried site-te
    [[ -n ${R1_ALL_ARCHITECTURES:-} ]] || "$python" "$here/keep_one_arch.py" \
        site-te/transformer_engine/wheel_lib/libtransformer_engine.so
    # jax is on the machine: without this folder nobody looks for its extension.
    rm -rf site-te/transformer_engine/jax site-te/bin
    if ! grep -qsxF "Version: $version" te-torch/PKG-INFO; then
        rm -rf te-torch te-torch.part build-te transformer_engine_torch-*.tar.gz
        NVTE_PYTORCH_FORCE_BUILD=TRUE pip download --no-deps --no-binary=:all: \
            --no-build-isolation -d . "transformer_engine_torch==$version"
        mkdir te-torch.part
        tar -xzf transformer_engine_torch-*.tar.gz --strip-components 1 -C te-torch.part
        mv te-torch.part te-torch
    fi
    build=build-te/torch-$(sed -n 's/^torch==//p' "$here/lists/twin.txt")
    make -s -f "$here/te_torch.mk" -j "${R1_COMPILERS:-$(nproc)}" PYTHON="$python" SOURCE=te-torch \
        BUILD="$build"
    cp "$build"/transformer_engine_torch*.so site-te/
}

make_dali() {
    download dali
    install dali site-dali
    (cd site-dali/nvidia/dali && rm -rf include \
        && find . -name '*cpython-3*' ! -name '*cpython-312-*' -delete)
    find site-dali -name '*.so*' -size +1M -print0 | xargs -0 "$python" "$here/keep_one_arch.py"
}

make_sglang() {
    download sglang
    install sglang site-sglang
    # A text model with Triton's attention has no use for other attention kernels (1.2 GB), images,
    # sources of FlashInfer's kernels and the servers in Rust.
    (cd site-sglang && rm -rf bin sglang/{multimodal_gen,benchmark,test} sgl_kernel/sm100 \
        sglang/srt/{grpc,server,multimodal}/_core*.so flashinfer/data \
        sgl_kernel/{flash_ops,flashmla_ops,infllm_ops}*.so)
    find site-sglang -type d -name tests -prune -exec rm -rf {} +
    "$python" "$here/keep_one_arch.py" site-sglang/sgl_kernel/*/*.so
    find site-sglang -name '*.so' ! -path '*/sgl_kernel/*' -exec strip --strip-unneeded {} +
}

# checked PROGRAM SITE...: run a check program of this folder in the repository, on the twin
checked() {
    local program=$1 begun=$SECONDS path=$root site
    shift
    for site in "$@"; do
        path+=:$site
    done
    say "$program"
    (cd "$root" && PYTHONPATH=$path OMP_NUM_THREADS=1 PYTHONWARNINGS=ignore \
        PYTHONDONTWRITEBYTECODE=1 "$python" "$here/$program")
    say "$program: $((SECONDS - begun)) s"
}

check() {
    local site=$work/site-te stub=$work/stub-driver
    LD_BIND_NOW=1 checked check_te.py "$site"
    checked check_te_triton.py "$site"
    if [[ ! -d site-sglang ]]; then
        checked check_triton_compiles.py "$site"
        return
    fi
    checked check_sglang_triton.py "$work/site-sglang" "$site"
    "$python" "$here/driver_stub.py" "$stub" site-sglang/sgl_kernel/*/*.so
    local -x LD_LIBRARY_PATH=$stub TVM_FFI_CACHE_DIR=$work/site-sglang/tvm-ffi
    checked check_triton_compiles.py "$work/site-sglang" "$site"
    checked check_sglang.py "$work/site-sglang" "$site"
    find site-sglang/tvm-ffi -type f ! -name '*.so' -delete
}

# One archive for each site and the digests of its parts; a large one in parts that are loads of
# their own and joined on the machine.
pack() {
    local site name load
    compgen -G 'site-*' > /dev/null || fail "nothing to pack in $work: name step te, sglang or dali"
    for site in site-*; do
        name=${site#site-}
        find "$site" -name __pycache__ -prune -exec rm -rf {} +
        pack_one "$name" "$site" --transform "s,^$site,site,"
    done
    [[ ! -d te-torch ]] || pack_one te-source te-torch --exclude '*.egg-info'
    for load in loads/*/; do
        cp "$here"/{on_machine.sh,te_torch.mk} "$load"
    done
    du -h --apparent-size --max-depth 1 loads
}

# pack_one NAME FOLDER TAR'S-OPTION...: unless nothing in FOLDER has changed
pack_one() {
    local name=$1 contents=$2 archive part load
    shift 2
    archive=archives/$name
    [[ ! -e $archive/$name.sha256 \
        || -n $(find "$contents" -type f -newer "$archive/$name.sha256" -print -quit) ]] || return 0
    rm -rf "$archive" "loads/$name" "loads/$name".*
    mkdir -p "$archive"
    tar -cf - --sort=name --owner=0 --group=0 "$@" "$contents" | xz -T0 -6 > "$archive/$name.tar.xz"
    if (($(stat -c %s "$archive/$name.tar.xz") > 60000000)); then
        split -b 58000000 -d "$archive/$name.tar.xz" "$archive/$name.tar.xz."
        rm "$archive/$name.tar.xz"
    fi
    (cd "$archive" && sha256sum -- "$name".tar.xz* > "$name.sha256")
    for part in "$archive/$name".tar.xz*; do
        load=loads/$name${part##*.tar.xz}
        mkdir -p "$load"
        ln "$part" "$load/"
        cp "$archive/$name.sha256" "$load/"
    done
}

for toolkit in /usr/local/cuda /usr/local/cuda-13*; do
    [[ ! -x $toolkit/bin/nvcc ]] || export CUDA_HOME=${CUDA_HOME:-$toolkit}
done
[[ " ${steps[*]} " == *" twin "* || -x $python ]] || fail "no twin in $work: name step twin as well"
mkdir -p "$work/wheels"
cd "$work"
for step in "${steps[@]}"; do
    case $step in
        twin) once twin "$here/lists/twin.txt" ;;
        te) once te "$here"/{lists/carried.txt,lists/twin.txt,keep_one_arch.py,te_torch.mk} ;;
        dali | sglang) once "$step" "$here"/{lists/"$step".txt,keep_one_arch.py} ;;
        *) "$step" ;;
    esac
done
say "done after $SECONDS s: $work/loads"
