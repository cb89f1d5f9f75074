"""The sbatch script of a launch, and its way to SLURM through submitit's SlurmExecutor."""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from submitit.core.utils import FailedJobError
from submitit.helpers import clean_env
from submitit.slurm.slurm import SlurmExecutor

from launch import options, runs, slurm
from launch.job import Job
from mscgan.errors import UserError

SAME_NAME = ("partition", "account", "qos", "constraint", "exclude", "nodelist", "comment", "dependency", "mem")


class _Executor(SlurmExecutor):
    """SlurmExecutor that can print its script where there is no srun, for --dry-run."""

    @classmethod
    def affinity(cls) -> int:
        return 2


def script(plan: runs.Plan) -> str:
    """The sbatch script, as `submit` hands it over. Needs no SLURM and writes nothing."""
    executor = _executor(plan)
    if len(plan.works) > 1:
        executor.parameters["map_count"] = len(plan.works)
    return executor._make_submission_file_text(executor._submitit_command_str, "")


def check(plan: runs.Plan) -> None:
    """Asks the scheduler whether the job could ever run.

    Raises:
        UserError: it could not; with the scheduler's reason.
    """
    with _outside_any_job():
        test = slurm.command("sbatch", "--test-only", input=script(plan))
    if test.returncode != 0:
        raise UserError(f"SLURM refuses this job: {_reason(test.stderr)}; nothing was queued")


def submit(plan: runs.Plan) -> str:
    """Queues the plan, whose folder is there. Returns the job's id; of an array, the one that all its tasks share.

    Raises:
        UserError: sbatch refuses it; with the scheduler's reason.
    """
    tasks = [Job(plan.folder, index) for index in range(len(plan.works))]
    with _outside_any_job():
        try:
            executor = _executor(plan)
            job = executor.submit(tasks[0]) if len(tasks) == 1 else executor.submit_array(tasks)[0]
        except FailedJobError as error:
            raise UserError(f"sbatch refused this job: {_reason(str(error))}") from error
    number = job.job_id.split("_")[0]
    runs.write_job(plan.folder, slurm=number)
    runs.register(plan.folder)
    return number


def _executor(plan: runs.Plan) -> _Executor:
    settings = plan.settings
    nodes, cpus = int(settings["nodes"]), int(settings["cpus_per_task"])
    executor = _Executor(plan.folder, python=_python(plan))
    parameters = {name: settings[name] for name in SAME_NAME if name in settings}
    more = {"requeue": True, "chdir": plan.cwd}
    if "reservation" in settings:
        more["reservation"] = settings["reservation"]
    if "mail_user" in settings:
        more |= {"mail-user": settings["mail_user"], "mail-type": "END,FAIL,REQUEUE,TIME_LIMIT"}
    executor.update_parameters(
        job_name=plan.job_name,
        time=options.minutes(settings["time"]),
        nodes=nodes,
        ntasks_per_node=plan.gpus or int(settings.get("tasks_per_node", 1)),
        gpus_per_node=plan.gpus
        or None,  # a node's GPUs are visible to all its ranks; gpus_per_task would break CUDA's IPC
        cpus_per_task=cpus,
        signal_delay_s=int(settings["signal_seconds"]),
        array_parallelism=int(settings["array_parallelism"]),
        stderr_to_stdout=True,
        wckey=None,
        setup=_setup(plan),
        teardown=_teardown(plan),
        # srun since 22.05 does not take cpus-per-task over from sbatch.
        srun_args=["--open-mode=append", "--kill-on-bad-exit=1", f"--cpus-per-task={cpus}", *_pyxis(plan)],
        additional_parameters=more,
        **parameters,
    )
    return executor


def _setup(plan: runs.Plan) -> list[str]:
    snapshot = shlex.quote(f"{plan.folder}/snapshot")
    return [
        "umask 077",
        *plan.settings.get("setup", []),
        f"export PYTHONPATH={snapshot}${{PYTHONPATH:+:$PYTHONPATH}}",
        f"{_attempt(plan, 'begin')} || exit $?",
    ]


def _teardown(plan: runs.Plan) -> list[str]:
    return ["code=$?", f'{_attempt(plan, "end")} "$code"']


def _attempt(plan: runs.Plan, what: str) -> str:
    program = [sys.executable, "-P", f"{plan.folder}/snapshot/launch/attempt.py", what, plan.folder]
    return shlex.join(program)


def _python(plan: runs.Plan) -> str:
    """What runs the tasks. -P: the checkout, where the job stands, must not come before the snapshot."""
    container = plan.settings.get("container", "")
    if not container:
        return f"{shlex.quote(sys.executable)} -P"
    if not container.endswith(".sif"):
        return "python3 -P"  # pyxis: srun itself enters the image
    binds = ",".join(_mounts(plan))
    return shlex.join(["apptainer", "exec", "--nv", "--bind", binds, "--pwd", plan.cwd, container, "python3", "-P"])


def _pyxis(plan: runs.Plan) -> list[str]:
    container = plan.settings.get("container", "")
    if not container or container.endswith(".sif"):
        return []
    mounts = ",".join(f"{path}:{path}" for path in _mounts(plan))
    return [f"--container-image={container}", f"--container-mounts={mounts}", f"--container-workdir={plan.cwd}"]


def _mounts(plan: runs.Plan) -> list[str]:
    """Folders that a container must see under their own names."""
    paths = [plan.cwd, plan.folder]
    for work in plan.works:
        paths += [work.run, work.shards] + ([work.stage_to] if "$" not in work.stage_to else [])
    return sorted({os.path.abspath(Path(plan.cwd, path)) for path in paths if path})


@contextmanager
def _outside_any_job() -> Iterator[None]:
    """Hides the environment of a job that the user submits from, but keeps which cluster this is."""
    conf = os.environ.get("SLURM_CONF")
    with clean_env():
        if conf:
            os.environ["SLURM_CONF"] = conf
        yield


def _reason(text: str) -> str:
    """sbatch's complaint in one line."""
    lines = [line.removeprefix("sbatch: ").removeprefix("error: ").strip() for line in text.splitlines()]
    return "; ".join(dict.fromkeys(line for line in lines if line)) or "no reason given"
