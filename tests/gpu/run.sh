#!/usr/bin/env bash
# Everything that needs a GPU, in one command, with results for machines. See usage below.
# Never run on a GPU: none was at hand.
set -uo pipefail

usage() {
    cat <<'TEXT'
usage: bash tests/gpu/run.sh [OUT_DIR] [tests|bench]

Runs the tests marked gpu and the benchmarks, and leaves in OUT_DIR (default: artefacts/gpu-<date>):

  environment.json   device, packages, kernels, commit
  summary.json       each step: status (passed, failed, timeout, killed), seconds, file of results
  tests.xml          pytest's results (JUnit)
  <benchmark>.json   training of two cut models in BF16 and FP8, log_probability, loading
  <step>.log         what each step printed

  tests, bench       one half of it; default: both
  R1_VENV            the environment's folder, from this repository's root; default: .venv
                     (bash launchers/setup.sh gpu test makes it)

A failing step does not keep the next ones from running. Exit status: 1 if a step failed, 2 if
nothing could start. Without a GPU tests are skipped and benchmarks are tiny: a try of this script.
TEXT
}

out='' part=all
for argument in "$@"; do
    case $argument in
        -h | --help) usage; exit 0 ;;
        tests | bench) part=$argument ;;
        -*) usage >&2; exit 2 ;;
        *)
            [[ -z $out ]] || { usage >&2; exit 2; }
            out=$(realpath -m -- "$argument")
            ;;
    esac
done

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
out=${out:-$PWD/artefacts/gpu-$(date +%Y-%m-%d)}
python=${R1_VENV:-.venv}/bin/python
export PYTHONPATH=$PWD OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# Name what cannot be imported; only a GPU needs Transformer Engine.
missing_packages() {
    "$python" - <<'PY'
from importlib import import_module

def missing(package, module):
    try:
        import_module(module)
    except (ImportError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return f"{package} ({reason})"
    return None

needed = {"torch": "torch", "pydantic": "pydantic", "pytest": "pytest"}
needed |= {"megatron-core": "megatron.core.package_info", "nvidia-dali-cuda130": "nvidia.dali"}
found = [missing(*pair) for pair in needed.items()]
if not found[0]:
    import torch

    if torch.cuda.is_available():
        found.append(missing("transformer-engine", "transformer_engine.pytorch"))
print("; ".join(filter(None, found)))
PY
}

[[ -x $python ]] || fail "no Python at $python: run bash launchers/setup.sh gpu test"
missing=$(missing_packages 2> /dev/null) || fail "$python does not start"
[[ -z $missing ]] || fail "missing: $missing. Run bash launchers/setup.sh gpu test"
mkdir -p "$out" || fail "cannot write to $out"
gpu=$("$python" -c 'import torch; print(int(torch.cuda.is_available()))')
((gpu)) || echo "no CUDA device: tests will be skipped, benchmarks are tiny"

steps=$(mktemp)
trap 'rm -f "$steps"' EXIT
failed=0

# step NAME SECONDS FILE COMMAND...: run, time, note; FILE is what it leaves in OUT_DIR
step() {
    local name=$1 limit=$2 file=$3 begun=$SECONDS status=passed code=0
    shift 3
    printf '== %s\n' "$name"
    rm -f "$out/$file"
    timeout --kill-after=30 "$limit" "$@" > "$out/$name.log" 2>&1 || code=$?
    case $code in
        0) [[ -e $out/$file ]] || status=failed ;;
        124) status=timeout ;;
        137) status=killed ;;
        *) status=failed ;;
    esac
    if [[ $status != passed ]]; then
        failed=1
        tail -n 5 "$out/$name.log" >&2
    fi
    printf '%s\t%s\t%s\t%s\n' "$name" "$status" $((SECONDS - begun)) "$file" >> "$steps"
    printf '== %s: %s after %s s\n' "$name" "$status" $((SECONDS - begun))
    summary
}

# Written after every step: an interrupted run leaves what it has.
summary() {
    "$python" - "$steps" "$out/summary.json" <<'PY'
import json, pathlib, sys

lines = [line.split("\t") for line in pathlib.Path(sys.argv[1]).read_text().splitlines()]
rows = [{"step": s, "status": how, "seconds": int(t), "file": f} for s, how, t, f in lines]
for row in rows:  # a step that failed early has left no file
    row["file"] = row["file"] if pathlib.Path(sys.argv[2]).with_name(row["file"]).exists() else None
pathlib.Path(sys.argv[2]).write_text(json.dumps(rows, indent=1) + "\n")
PY
}

environment() {
    step environment 300 environment.json "$python" -c '
import json, sys
from engine.platform import accelerator, kernels
accelerator.prepare()
from engine.config.layout import LayoutConfig
from engine.monitoring.environment import describe_environment
layout = LayoutConfig(processes=1).model_dump()
found = describe_environment(
    device=accelerator.device_name(), kernels=kernels.kernels(), layout=layout
)
open(sys.argv[1], "w").write(json.dumps(found, indent=1) + "\n")' "$out/environment.json"
}

run_tests() {
    step tests 3600 tests.xml \
        "$python" -m pytest -m gpu tests/gpu --junit-xml="$out/tests.xml" --timeout 900
}

# training NAME CONFIG: BF16 beside every FP8 recipe; one that the device cannot do says so
training() {
    local sizes=(--samples 4 --median 20 --limit 64 --tokens-per-microbatch 64 --steps 1 --rounds 1)
    if ((gpu)); then
        sizes=(--model "tools/benchmarks/configs/$2.json")
        sizes+=(--samples 16 --median 3000 --limit 16384 --tokens-per-microbatch 16384 --rounds 3)
    fi
    step "$1" 3600 "$1.json" "$python" -m tools.benchmarks.training --processes 1 "${sizes[@]}" \
        --rows "fp8 blockwise" "fp8 tensorwise" "fp8 delayed" "fp8 mxfp8" --json "$out/$1.json"
}

run_benchmarks() {
    local scores=() batches=()
    if ((gpu)); then
        scores=(--hidden 2048 --vocabulary 151936)
    else
        scores=(--tokens 64 --hidden 32 --vocabulary 128 --repeats 1)
        batches=(--samples 200 --steps 2 --repeats 1 --median 50 --limit 200)
    fi
    training training-qwen3 qwen3_30b_a3b_4_layers
    training training-deepseek-v3 deepseek_v3_2_layers_32_experts
    step log_probability 1800 log_probability.json \
        "$python" -m tools.benchmarks.log_probability "${scores[@]}" \
        --json "$out/log_probability.json"
    step loading 1800 loading.json \
        "$python" -m tools.benchmarks.loading "${batches[@]}" --json "$out/loading.json"
}

environment
[[ $part == bench ]] || run_tests
[[ $part == tests ]] || run_benchmarks
echo "results: $out"
exit $failed
