#!/usr/bin/env bash
# Runs the linter, the type checker and the tests: ./run_tests.sh [--nightly] [arguments for pytest]
# --nightly also runs what is too long for every change, parity with transformers and many more damaged files, in an order
# that it draws and names, and counts the lines that are reached: that takes a third more time (Python 3.11).
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/scripts/environment.sh"

chosen=(-m "not nightly")
if [ "${1:-}" = --nightly ]; then
    shift
    chosen=(--shuffle "$RANDOM" --cov --cov-report=term:skip-covered)
    export GATED_BERT_FUZZ="${GATED_BERT_FUZZ:-3000}" KILLS="${KILLS:-4}"
fi
find_python
ensure_installed tensorflow jax cluster export explain ner tensorboard mlflow wandb docs dev
cd "$here"
status=0
"$python" -m ruff check . || status=1
"$python" -m mypy || status=1
# A worker per processor, four at most: each holds a framework. One that has nothing left takes from another.
"$python" -m pytest -n logical --maxprocesses 4 --dist worksteal --durations=25 "${chosen[@]}" "$@" || status=$?
exit "$status"
