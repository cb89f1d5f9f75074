#!/bin/bash
# Measures on one GPU everything that this project promises there, the most valuable part first, and prints one table
# after each part. benchmarks/gpu_run.py has the parts; --help lists what can be set.
#   benchmarks/run_gpu_checks.sh [OUT] [--minutes N]     OUT: a folder for records and logs (runs/gpu-checks)
#   benchmarks/run_gpu_checks.sh OUT --tiny              the same path at sizes for a CPU, to try it

cd "$(dirname "$0")/.." || exit 2
python=${MSCGAN_PYTHON:-.venv/bin/python}
[ -x "$python" ] || python=$(command -v python3) || { echo "error: no Python; set MSCGAN_PYTHON" >&2; exit 2; }
exec "$python" -P benchmarks/gpu_run.py "$@"
