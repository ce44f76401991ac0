#!/usr/bin/env bash
# Every check of this repository, the quick ones first: bash tests/run.sh [pytest arguments]
# Makes its own environment in .venv-test (R1_VENV: another place). Arguments narrow down the tests,
# for example: bash tests/run.sh tests/config -x
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export R1_VENV=${R1_VENV:-.venv-test}
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 # two threads a process on two cores are 8x slower than one
bin=$R1_VENV/bin

phase() {
    local name=$1 begin=$SECONDS
    shift
    echo "== $name"
    "$@" || {
        echo "== $name failed after $((SECONDS - begin)) s" >&2
        exit 1
    }
    echo "== $name: $((SECONDS - begin)) s"
}

# The tests that look at TensorBoard and the report need a browser; without one they are skipped.
install_chromium() {
    ! command -v chromium > /dev/null || return 0
    if [[ $(id -u) != 0 ]] || ! command -v apt-get > /dev/null; then
        echo "no chromium here and no right to install it: the tests that need a browser will say so"
        return 0
    fi
    apt-get -qq update &&
        DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium > /dev/null ||
        echo "chromium could not be installed: the tests that need a browser will say so"
}

run_pytest() {
    local status=0
    "$bin/python" -m pytest "$@" || status=$?
    ((status == 5)) || return "$status" # 5: the arguments leave no test of this speed
}

phase "environment" bash launchers/setup.sh cpu test
phase "browser" install_chromium
phase "ruff check" "$bin/ruff" check .
phase "ruff format" "$bin/ruff" format --check .
phase "types" "$bin/mypy"
two_at_a_time=(-n 2 --dist loadfile)
phase "fast tests" run_pytest -m "not slow and not gpu" "${two_at_a_time[@]}" --durations=10 "$@"
phase "slow tests" run_pytest -m "slow and not serial and not gpu" "${two_at_a_time[@]}" \
    --durations=15 "$@"
phase "serial tests" run_pytest -m "serial and not gpu" --durations=15 "$@"
echo "== everything passed in $SECONDS s"
