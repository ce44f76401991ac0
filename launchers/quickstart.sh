#!/usr/bin/env bash
# From a fresh clone to a small mixture-of-experts model that has taught itself, by reinforcement
# learning alone, to think before it answers. See usage below; launchers/README.md says the rest.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: [SEED=n] bash launchers/quickstart.sh [RUN_DIR] [key=value ...]

Sets up the environment, makes the base model, teaches it (recipe Zero), evaluates it on problems
that it has never seen, and writes a report. About 15 minutes on 2 cores without a GPU, 10 once the
environment is there.

  RUN_DIR   the run's folder; default runs/quickstart of this repository (with another seed than 1:
            runs/quickstart-seed<n>). Started again, a folder goes on from its last checkpoint.
  key=value any key of the run's configuration, such as layout.tp=2 (python -m recipes.zero --help)
  SEED      seed of the base model, its data and the run; default 1. A base model is made once per
            seed and kept in runs/base-seed<n>.

Ctrl-C stops everything; the same command then goes on where it was.
TEXT
}

folder='' overrides=()
for argument in "$@"; do
    case $argument in
        -h | --help) usage; exit 0 ;;
        -*) usage >&2; exit 2 ;;
        seed=* | run_dir=* | model=* | prompts.train=* | prompts.held_out=*)
            echo "error: $argument: the base model decides it; SEED and RUN_DIR are yours" >&2
            exit 2
            ;;
        *)
            if [[ $argument == *=* && ${argument%%=*} != */* ]]; then
                overrides+=("$argument")
                continue
            fi
            [[ -z $folder ]] || { usage >&2; exit 2; }
            folder=$argument
            ;;
    esac
done

seed=${SEED:-1}
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
base=$repository/runs/base-seed$seed

if [[ -n $folder ]]; then
    run=$folder
    [[ $run == /* ]] || run=$PWD/$run # as the caller sees it, wherever the repository is
elif [[ $seed == 1 ]]; then
    run=$repository/runs/quickstart
else
    run=$repository/runs/quickstart-seed$seed
fi

cd "$repository"
environment=${R1_VENV:-.venv} # see launchers/setup.sh
[[ $environment == /* ]] || environment=$repository/$environment
python=$environment/bin/python

echo "== 1 of 3: the environment"
bash launchers/setup.sh

zero=(recipes/configs/quickstart/zero.yaml seed="$seed" run_dir="$run" model="$base"
    prompts.train="$base/prompts/train.jsonl" prompts.held_out="$base/prompts/held_out.jsonl"
    "${overrides[@]}")
"$python" -m recipes.zero "${zero[@]}" --print > /dev/null # a mistyped key is told before hard work

echo "== 2 of 3: the base model of seed $seed, in $base"
"$python" -m launchers.local recipes.base recipes/configs/quickstart/base.yaml \
    seed="$seed" run_dir="$base" --stop-with-parent

echo "== 3 of 3: Zero: reinforcement learning from the base model, in $run"
"$python" -m launchers.local recipes.zero "${zero[@]}" --stop-with-parent

cat <<TEXT
== done
report:       $run/report.html
measurements: $run/summary.json
curves:       $environment/bin/tensorboard --logdir $run
TEXT
