#!/usr/bin/env bash
# Runs the linter and the tests: ./run_tests.sh [arguments for pytest]
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/scripts/environment.sh"

find_python
ensure_installed tensorflow export explain dev
cd "$here"
status=0
"$python" -m ruff check . || status=1
"$python" -m pytest "$@" || status=$?
exit "$status"
