# Sourced by the .sbatch files. `chain JOB ARGUMENTS...` runs one attempt of a job and requeues it until it is done.
# The folder of the launch, with its copy of the code, is made by the first attempt; later ones go on in it.

chain() {
  local kind=$1 python=${MSCGAN_PYTHON:-.venv/bin/python} folder step code
  shift
  umask 077
  [ -x "$python" ] || python=$(command -v python3)
  folder=$("$python" -P launch/submit.py --prepare --job "$kind" "$@") || exit $?
  "$python" -P "$folder/snapshot/launch/attempt.py" begin "$folder" || exit $?

  # --signal=B:USR1@N reaches this shell alone, N seconds before the time limit: hand it on to the tasks, which save.
  trap 'scancel --signal=USR1 "$SLURM_JOB_ID"' USR1
  srun --output="$folder/${SLURM_JOB_ID}_%t_log.out" --open-mode=append --unbuffered --kill-on-bad-exit=1 \
    --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" "$python" -P "$folder/snapshot/launch/job.py" "$folder" &
  step=$!
  code=0
  while kill -0 "$step" 2>/dev/null; do # a trapped signal ends `wait` early
    wait "$step"
    code=$?
  done

  "$python" -P "$folder/snapshot/launch/attempt.py" end "$folder" "$code"
  exit $?
}

cd "${SLURM_SUBMIT_DIR:?submit this file with sbatch}" || exit 2
if [ ! -f launch/submit.py ]; then
  echo "error: $PWD is not the project's folder; run sbatch from there" >&2
  exit 2
fi
