#!/usr/bin/env bash
# Runs the linter, the type checker and the tests: ./run_tests.sh [arguments for pytest]
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/scripts/environment.sh"

find_python
extras=(tensorflow export explain dev)
[ "${KERAS_BACKEND:-tensorflow}" = tensorflow ] || extras+=("$KERAS_BACKEND")
ensure_installed "${extras[@]}"
cd "$here"
status=0
"$python" -m ruff check . || status=1
"$python" -m mypy || status=1
# A worker per processor, four at most: each holds a framework. A file stays with one of them, for its fixtures.
"$python" -m pytest -n logical --maxprocesses 4 --dist loadfile "$@" || status=$?
exit "$status"
