#!/usr/bin/env bash
# Installs the clients that tests/clients and `python -m benchmarks clients` run, into .clients:
#   tests/clients/install.sh [PYTHON]     PYTHON has gated_bert and torch; by default .venv's, else python3
# optimum needs another transformers than the other tests do, hence a folder of its own that goes before the others on
# the search path. Chromium, for the browser, is `apt install chromium` or `playwright install chromium`.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
python="${1:-$here/.venv/bin/python}"
[ -n "${1:-}" ] || [ -x "$python" ] || python=python3

mkdir -p "$here/.clients"
"$python" -m pip install --disable-pip-version-check --quiet --upgrade --no-deps --target "$here/.clients/python" \
    'optimum==2.1.*' 'optimum-onnx==0.1.*' 'transformers==4.57.*' 'huggingface_hub<1' 'tokenizers>=0.22,<=0.23'
if command -v npm >/dev/null; then
    # Without the scripts, which would fetch libraries for GPUs.
    npm install --prefix "$here/.clients" --ignore-scripts --no-audit --no-fund --no-save '@huggingface/transformers@4.3.1'
else
    echo "no npm: transformers.js is not installed" >&2
fi
