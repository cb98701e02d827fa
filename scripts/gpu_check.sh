#!/usr/bin/env bash
# Proves on a GPU, in minutes, what the library claims of one: scripts/gpu_check.sh --help
# Needs no installation of t3d: python3 with torch and transformers; a part that needs more says so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python3}" benchmarks/gpu_check.py "$@"
