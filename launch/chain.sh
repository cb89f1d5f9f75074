# Sourced by the .sbatch files at a job's first attempt. `chain JOB ARGUMENTS...` makes the folder of the launch, with
# its copy of the code, and runs the batch.sh in it; later attempts find that themselves.

cd "${SLURM_SUBMIT_DIR:?submit this file with sbatch}" || exit 2
if [ ! -f launch/submit.py ]; then
  echo "error: $PWD is not the project's folder; run sbatch from there" >&2
  exit 2
fi

chain() {
  local kind=$1 python=${MSCGAN_PYTHON:-.venv/bin/python} folder
  shift
  [ -x "$python" ] || python=$(command -v "$python" || command -v python3)
  if ! "$python" -P -c 'import omegaconf, submitit, yaml' 2>/dev/null; then
    echo "error: ${python:-python3} on $(hostname) lacks the project's packages; run \`make install\`, activate the" \
      "environment before sbatch, or set MSCGAN_PYTHON to its python" >&2
    exit 2
  fi
  folder=$("$python" -P launch/submit.py --prepare --job "$kind" "$@") || exit $?
  [ -n "$folder" ] || exit 0 # the run is complete
  exec bash "$folder/batch.sh"
}
