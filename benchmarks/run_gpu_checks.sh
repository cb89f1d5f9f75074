#!/bin/bash
# Measures on one GPU everything that this project promises there, in at most 9 minutes, and prints one table last.
#   benchmarks/run_gpu_checks.sh [OUT]           OUT: a folder for records and logs (runs/gpu-checks)
#   benchmarks/run_gpu_checks.sh OUT --tiny      the same commands at sizes for a CPU, to try this script
# A section that fails or takes too long leaves its bars "not measured"; the others go on. Exit code 0: all bars met.

cd "$(dirname "$0")/.." || exit 2
out=${1:-runs/gpu-checks}/$(date +%Y%m%dT%H%M%S)
python=${MSCGAN_PYTHON:-.venv/bin/python}
[ -x "$python" ] || python=$(command -v python3)
mkdir -p "$out" || exit 2

step=(step --stages joint --configs deepfashion --precisions bf16 --batch 16 --rounds 3 --steps 5)
ops=(ops --quick --sizes 256x256)
data=(data --sizes 256x256 --rounds 2 --seconds 0.5)
if [ "${2:-}" = --tiny ]; then
  step=(step --stages joint --configs demo --precisions fp32 --batch 2 --rounds 1 --steps 1)
  ops=(ops --sizes 64x32 --megabytes 1 --rounds 1 --seconds 0.01)
  data=(data --sizes 64x32 --images 8 --rounds 1 --seconds 0.05)
fi

# name, seconds at most (520 together), arguments
section() {
  local name=$1 limit=$2 began=$SECONDS
  shift 2
  echo "== $name (at most $limit s; log: $out/$name.log)"
  timeout --kill-after=5 "$limit" "$python" -P benchmarks/run_throughput.py "$@" --out "$out" --people 20 \
    >"$out/$name.log" 2>&1
  local code=$?
  echo "   exit code $code after $((SECONDS - began)) s"
  [ "$code" = 0 ] || tail -n 5 "$out/$name.log"
}

section ops 130 "${ops[@]}"
section step 170 "${step[@]}" --ways zero1 ddp loader plain --energy-seconds 4
section step-compiled 175 "${step[@]}" --ways zero1 compiled --energy-seconds 0
section data 45 "${data[@]}"
echo
"$python" -P benchmarks/gpu_checks.py "$out"
