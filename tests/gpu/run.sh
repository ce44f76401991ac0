#!/usr/bin/env bash
# Everything that needs a GPU, in one command, with results for machines: see --help.
set -uo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd) || exit 2
venv=${R1_VENV:-.venv}
[[ $venv == /* ]] || venv=$root/$venv
python=$venv/bin/python
case " $* " in
    *" --help "* | *" -h "*) exec python3 "$root/tests/gpu/runner" --help ;; # needs no environment
esac
if [[ ! -x $python ]]; then
    printf 'error: no Python at %s: run bash launchers/setup.sh gpu test\n' "$python" >&2
    exit 2
fi
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
export PYTHONUNBUFFERED=1 # the log of a step that is stopped says how far it came
exec "$python" "$root/tests/gpu/runner" "$@"
