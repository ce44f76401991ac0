#!/usr/bin/env bash
# Everything that needs a GPU, in one command, with results for machines. See usage below.
# Never run on a GPU: none was at hand.
set -uo pipefail

benchmarks=(training-qwen3 training-deepseek-v3 training-levers log_probability loading)
test_files=()
for file in "$(dirname "${BASH_SOURCE[0]}")"/test_*_on_gpu.py; do
    test_files+=("$(basename "$file" .py)")
done
all_steps=("${test_files[@]}" "${benchmarks[@]}")

usage() {
    cat <<'TEXT'
usage: bash tests/gpu/run.sh [OUT_DIR] [STEP ...]

Runs the tests marked gpu and the benchmarks, and leaves in OUT_DIR (default: artefacts/gpu-<date>):

  environment.json   device, packages, kernels, commit
  summary.json       each step: status (passed, failed, timeout, killed), seconds, file of results
  <test>.xml         pytest's results of a file of tests (JUnit)
  <benchmark>.json   training of two cut models in BF16 and FP8 and with each lever,
                     log_probability, loading
  <step>.log         what each step printed

  STEP               tests, bench, or single steps, so that every call is short where calls have a
                     limit; a later call into the same folder adds to its summary. Default: all of
TEXT
    printf '                     %s\n' "${all_steps[@]}"
    cat <<'TEXT'
  R1_VENV            the environment's folder, from this repository's root; default: .venv
                     (bash launchers/setup.sh gpu test makes it)

A failing step does not keep the next ones from running. Exit status: 1 if a step failed, 2 if
nothing could start. Without a GPU tests are skipped and benchmarks are tiny: a try of this script.
TEXT
}

out='' chosen=()
for argument in "$@"; do
    case $argument in
        -h | --help) usage; exit 0 ;;
        tests) chosen+=("${test_files[@]}") ;;
        bench) chosen+=("${benchmarks[@]}") ;;
        -*) usage >&2; exit 2 ;;
        *)
            if [[ " ${all_steps[*]} " == *" $argument "* ]]; then
                chosen+=("$argument")
                continue
            fi
            [[ -z $out ]] || { usage >&2; exit 2; }
            out=$(realpath -m -- "$argument")
            ;;
    esac
done
((${#chosen[@]})) || chosen=("${all_steps[@]}")

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

# Written after every step: an interrupted run leaves what it has, and what earlier calls left.
summary() {
    "$python" - "$steps" "$out/summary.json" <<'PY'
import json, pathlib, sys

file = pathlib.Path(sys.argv[2])
earlier = json.loads(file.read_text()) if file.exists() else []
lines = [line.split("\t") for line in pathlib.Path(sys.argv[1]).read_text().splitlines()]
rows = {row["step"]: row for row in earlier}
rows |= {s: {"step": s, "status": how, "seconds": int(t), "file": f} for s, how, t, f in lines}
for row in rows.values():  # a step that failed early has left no file
    there = row["file"] is not None and file.with_name(row["file"]).exists()
    row["file"] = row["file"] if there else None
file.write_text(json.dumps(list(rows.values()), indent=1) + "\n")
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

# training NAME CONFIG ROW...: beside the baseline; what the device cannot do says so
training() {
    local name=$1 config=$2
    local sizes=(--samples 4 --median 20 --limit 64 --tokens-per-microbatch 64 --steps 1 --rounds 1)
    shift 2
    if ((gpu)); then
        sizes=(--model "tools/benchmarks/configs/$config.json")
        sizes+=(--samples 16 --median 3000 --limit 16384 --tokens-per-microbatch 16384)
        # With all its words the state of its 4 billion parameters would fill an H100.
        [[ $config != deepseek* ]] || sizes+=(--vocabulary 32768)
    fi
    step "$name" 3600 "$name.json" "$python" -m tools.benchmarks.training --processes 1 \
        "${sizes[@]}" --json "$out/$name.json" --rows "$@"
}

run() {
    local scores=() batches=() qwen3=qwen3_30b_a3b_4_layers
    local fp8=("fp8 blockwise" "fp8 tensorwise" "fp8 parameters" "fp8 delayed" "fp8 mxfp8")
    if ((gpu)); then
        scores=(--hidden 2048 --vocabulary 151936)
    else
        scores=(--tokens 64 --hidden 32 --vocabulary 128 --repeats 1)
        batches=(--samples 200 --steps 2 --repeats 1 --median 50 --limit 200)
    fi
    case $1 in
        test_*)
            step "$1" 1800 "$1.xml" "$python" -m pytest -m gpu "tests/gpu/$1.py" \
                --junit-xml="$out/$1.xml" --timeout 900
            ;;
        training-qwen3) training "$1" $qwen3 "${fp8[@]}" ;;
        training-deepseek-v3) training "$1" deepseek_v3_2_layers_32_experts "${fp8[@]}" ;;
        training-levers)
            training "$1" $qwen3 "recompute selective" "recompute full" "dispatcher allgather" \
                "overlap gradients" "overlap both" "optimizer offload"
            ;;
        log_probability)
            step "$1" 1800 "$1.json" "$python" -m tools.benchmarks.log_probability \
                "${scores[@]}" --json "$out/$1.json"
            ;;
        loading)
            step "$1" 1800 "$1.json" "$python" -m tools.benchmarks.loading \
                "${batches[@]}" --json "$out/$1.json"
            ;;
    esac
}

environment
for chosen_step in "${chosen[@]}"; do
    run "$chosen_step"
done
echo "results: $out"
exit $failed
