#!/usr/bin/env bash
# Unpack on a GPU machine what prepare.sh packed, then run steps of run.sh: see --help.
set -uo pipefail

usage() {
    cat <<'TEXT'
usage: bash .gpu-bundle/loads/te/on_machine.sh [rebuild] [STEP ...]    (from the repository's root)

For a GPU machine without a network. Unpacks the loads of prepare.sh that were copied here, but for
those unpacked before, and makes a virtual environment of the machine's Python and what it unpacked.
Then it runs the STEPs with tests/gpu/run.sh, whose --help names them and the variables they read;
without a STEP nothing else happens. A later call needs no load: tests/gpu/bundle/on_machine.sh is
the same script.

  rebuild    first compile Transformer Engine's extension here, should the carried one not load;
             needs the load te-source
  STEP       of tests/gpu/run.sh: smoke, tests, training, served, ...

Environment variables:

  OUT        folder for what has to come back: results.tar.gz, anew after every step, and what was
             compiled; default: results
  R1_LIMIT   seconds for all of this call, unpacking included; default: 540
  R1_LOADS   folder of the loads; default: .gpu-bundle/loads
  R1_ROOM    folder to unpack into; default: /tmp/r1
  R1_BASE    the machine's Python, which has torch; default: python3

Exit status: run.sh's; 2 if nothing could start.
TEXT
}

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
out=$(realpath -m -- "${OUT:-results}")
loads=$(realpath -m -- "${R1_LOADS:-.gpu-bundle/loads}")
room=${R1_ROOM:-/tmp/r1}
base=${R1_BASE:-$(command -v python3)}
[[ $base == /* ]] || base=$PWD/$base
limit=${R1_LIMIT:-540}
steps=() rebuild=
for argument in "$@"; do
    case $argument in
        -h | --help) usage; exit 0 ;;
        rebuild) rebuild=yes ;;
        *) steps+=("$argument") ;;
    esac
done

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# unpack DIGESTS: the archive whose parts it names, if all of them have been carried
unpack() {
    local name part
    name=$(basename "$1" .sha256)
    [[ ! -e $room/unpacked-$name ]] || return 0
    for part in $(awk '{print $2}' "$1"); do
        if [[ ! -e $room/parts/$part ]]; then
            echo "$name waits for $part"
            return 0
        fi
    done
    (cd "$room/parts" && sha256sum --check --quiet "$1") || fail "$name has been damaged"
    # There may be no xz. Not mode "r|xz": it copies again and again what long runs of zeros become.
    cat "$room/parts/$name".tar.xz* | "$base" -c '
import lzma, sys, tarfile
with lzma.open(sys.stdin.buffer) as contents:
    with tarfile.open(fileobj=contents, mode="r|", bufsize=1 << 20) as packed:
        packed.extraction_filter = getattr(tarfile, "tar_filter", None)  # Python 3.11.4 and later
        packed.extractall(sys.argv[1])' "$room" \
        || fail "$name cannot be unpacked into $room"
    touch "$room/unpacked-$name"
    echo "unpacked $name after $SECONDS s"
}

# What tests/gpu/run.sh takes for a virtual environment: a Python that sees what was carried.
make_environment() {
    mkdir -p "$room/venv/bin"
    cat > "$room/venv/bin/python" <<SH
#!/bin/sh
# The repository is to be found before what was carried, and that before the machine's own.
export PYTHONPATH="\${PYTHONPATH:+\$PYTHONPATH:}$room/site"
export NVTE_FRAMEWORK=pytorch # Transformer Engine looks for no other framework
export TVM_FFI_CACHE_DIR="$room/site/tvm-ffi" # SGLang's kernels, some of them compiled already
$(toolkit)
exec "$base" "\$@"
SH
    chmod +x "$room/venv/bin/python"
}

# Where Transformer Engine and SGLang find CUDA's headers for the kernels that they compile.
toolkit() {
    local site
    if [[ -x /usr/local/cuda/bin/nvcc ]]; then
        echo 'export CUDA_HOME="${CUDA_HOME:-/usr/local/cuda}"'
        return
    fi
    site=$("$base" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    [[ ! -e $site/nvidia/cu13/include/cuda_runtime.h ]] \
        || echo "export NVTE_CUDA_INCLUDE_DIR=\"$site/nvidia/cu13/include\""
}

rebuild() {
    [[ -d $room/te-torch ]] || fail "rebuild needs the load te-source"
    ((limit > SECONDS)) || fail "unpacking took all of the time"
    if ! timeout $((limit - SECONDS)) make -f "$here/te_torch.mk" -j "$(nproc)" PYTHON="$base" \
        SOURCE="$room/te-torch" BUILD="$room/build-te" > "$out/rebuild.log" 2>&1; then
        tail -n 20 "$out/rebuild.log" >&2
        fail "Transformer Engine's extension cannot be compiled: $out/rebuild.log"
    fi
    cp "$room"/build-te/transformer_engine_torch*.so "$room/site/"
    gzip -c "$room"/build-te/transformer_engine_torch*.so > "$out/transformer_engine_torch.so.gz"
    echo "rebuilt after $SECONDS s"
}

[[ $limit =~ ^[1-9][0-9]*$ ]] || fail "R1_LIMIT must be a whole number of at least 1, not '$limit'"
[[ -f $base && -x $base ]] || fail "no Python at $base: name one in R1_BASE"
mkdir -p "$out" "$room/parts" "$room/site" || fail "cannot write to $out and $room"
for load in "$loads"/*/; do
    for file in "$load"*.tar.xz* "$load"*.sha256; do
        [[ ! -e $file || -e $room/parts/$(basename "$file") ]] || cp "$file" "$room/parts/"
    done
done
for digests in "$room"/parts/*.sha256; do
    [[ -e $digests ]] || fail "no loads in $loads, and none were unpacked before"
    unpack "$digests"
done
make_environment
[[ -z $rebuild ]] || rebuild
((${#steps[@]})) || exit 0
((limit > SECONDS)) || fail "unpacking took all of the time"
export R1_VENV=$room/venv R1_LIMIT=$((limit - SECONDS)) R1_ARCHIVE=$out/results.tar.gz
exec bash tests/gpu/run.sh "$room/results" "${steps[@]}"
