"""The sbatch script of a launch, and its way to SLURM through submitit's SlurmExecutor."""

import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import clean_env
from submitit.slurm.slurm import SlurmExecutor

from launch import notations, options, runs, slurm
from launch.job import Job
from mscgan.errors import MISTAKE, UserError, of_disk

YEAR = 365 * 24 * 60  # minutes


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
    with _environment():
        test = slurm.command("sbatch", "--test-only", input=script(plan))
        if test.returncode == 0 and (arguments := _srun(plan) + _image(plan)):
            settings, same = plan.settings, ("partition", "account", "qos", "reservation")
            where = [f"--{name}={settings[name]}" for name in same if name in settings]
            test = slurm.command("srun", "--test-only", "--nodes=1", "--ntasks=1", *where, *arguments, "true")
    if test.returncode != 0:
        raise UserError(f"SLURM refuses this job: {slurm.complaint(test.stderr)}; nothing was queued")


def submit(plan: runs.Plan) -> str:
    """Queues the plan, whose folder is there. Returns the job's id; of an array, the one that all its tasks share.

    Raises:
        UserError: sbatch refuses it; with the scheduler's reason.
    """
    tasks = [Job(plan.folder, index) for index in range(len(plan.works))]
    with _environment():
        try:
            executor = _executor(plan)
            job = executor.submit(tasks[0]) if len(tasks) == 1 else executor.submit_array(tasks)[0]
            number = job.job_id.split("_")[0]
            runs.write_job(plan.folder, slurm=number)
        except FailedJobError as error:
            raise UserError(f"sbatch refused this job: {slurm.complaint(str(error))}; {_taken_back(plan)}") from error
        except FailedSubmissionError as error:  # as of a site's own sbatch
            raise UserError(f"{_taken_back(plan)}: no job's number in {slurm.complaint(str(error))}") from error
        except OSError as error:
            raise UserError(f"{_taken_back(plan)}: {of_disk(error)}") from error
    runs.register(plan.folder)
    return number


def _taken_back(plan: runs.Plan) -> str:
    """Cancels what sbatch has queued of a launch that could not be written down, as nobody would find it again; says
    what became of it."""
    try:
        jobs = slurm.of_script(plan.folder)
    except slurm.NoAnswer as error:
        return (
            f"whether the job is queued is not known ({error}): look with `squeue --name={plan.job_name}`, and end it "
            "with scancel"
        )
    if not jobs:
        return "nothing was queued"
    done = slurm.command("scancel", *jobs)
    if done.returncode:
        return (
            f"job {' '.join(jobs)} is queued ({slurm.complaint(done.stderr)}): end it with `scancel {' '.join(jobs)}`"
        )
    return f"job {' '.join(jobs)}, which sbatch had queued, is cancelled"


def batch(plan: runs.Plan) -> str:
    """What the batch script of a .sbatch file does once its launch is prepared; #SBATCH lines come too late there."""
    program = shlex.join(["-u", f"{plan.folder}/snapshot/launch/job.py", plan.folder])
    text = _executor(plan)._make_submission_file_text(f"{_python(plan)} {program}", "")
    return "\n".join(line for line in text.splitlines() if not line.startswith(("#SBATCH", "# Parameters"))) + "\n"


def _executor(plan: runs.Plan) -> _Executor:
    settings = plan.settings
    executor = _Executor(plan.folder, python=_python(plan))
    executor.update_parameters(
        # For the paths of submitit's own records; the flags below say it to sbatch, and win.
        nodes=notations.node_counts(settings["nodes"])[-1],
        ntasks_per_node=_tasks(plan),
        time=int(min(notations.minutes(settings["time"]), YEAR)),
        signal_delay_s=int(settings["signal_seconds"]),
        array_parallelism=int(settings["array_parallelism"]),
        stderr_to_stdout=True,
        wckey=None,
        setup=_setup(plan),
        teardown=_teardown(plan),
        srun_args=[
            "--open-mode=append",
            "--kill-on-bad-exit=1",
            f"--cpus-per-task={settings['cpus_per_task']}",  # srun since 22.05 does not take it over from sbatch
            *_srun(plan),
        ],
        additional_parameters=_flags(plan),
    )
    return executor


def _tasks(plan: runs.Plan) -> int:
    """Processes of a node."""
    return plan.gpus or int(plan.settings.get("tasks_per_node", 1))


def _flags(plan: runs.Plan) -> dict[str, str | bool]:
    """The options for sbatch, by the names that submitit has for them; True: one without a value."""
    settings = plan.settings
    flags: dict[str, str | bool] = {
        name: settings[name] for name, option in options.OPTIONS.items() if option.sbatch and name in settings
    }
    flags |= {name: True for name in flags if options.OPTIONS[name].flag and flags[name] == "true"}
    # A node's GPUs are visible to all its ranks; gpus_per_task would break CUDA's IPC.
    del flags["gpus_per_node"]
    if options.gpus_asked(settings) is None and plan.gpus:
        flags["gpus_per_node"] = str(plan.gpus)
    elif plan.gpus and not notations.gpus_of_gres(str(flags.get("gres", ""))):
        flags["gpus_per_node"] = settings["gpus_per_node"]
    if "mail_user" in flags:
        flags.setdefault("mail_type", "END,FAIL,REQUEUE,TIME_LIMIT")
    for text in settings.get("sbatch", []):
        key, equals, value = text.partition("=")
        flags[key.replace("-", "_")] = value if equals else True
    flags |= {"job_name": plan.job_name, "ntasks_per_node": str(_tasks(plan)), "requeue": True, "chdir": plan.cwd}
    # sbatch reads a backslash as an escape within any quotes.
    return {
        name: value.replace("\\", "\\\\") if isinstance(value, str) else value for name, value in flags.items() if value
    }


def _srun(plan: runs.Plan) -> list[str]:
    """The user's own arguments of srun."""
    return [text if text.startswith("-") else f"--{text}" for text in plan.settings.get("srun", [])]


def _image(plan: runs.Plan) -> list[str]:
    """The argument by which srun itself, with pyxis, enters a container."""
    container = plan.settings.get("container", "")
    return [f"--container-image={container}"] if container and not container.endswith(".sif") else []


def _setup(plan: runs.Plan) -> list[str]:
    snapshot = shlex.quote(f"{plan.folder}/snapshot")
    return [
        "umask 077",
        "unset SLURM_EXPORT_ENV  # with sbatch --export=NONE the ranks would not get what follows",
        *_of_the_site(plan),
        f"export PYTHONPATH={snapshot}${{PYTHONPATH:+:$PYTHONPATH}}",
        f"{_attempt(plan, 'begin')} || exit $?",
    ]


def _of_the_site(plan: runs.Plan) -> list[str]:
    """The setup lines. One that fails, or ends the script (an `exit` in a file that it sources), ends the job with its
    text, in the log and in attempts.jsonl."""
    lines = plan.settings.get("setup", [])
    if not lines:
        return []
    return [
        "mscgan_setup() {",
        '  local text="a setup line $1: $mscgan_line"',
        '  mscgan_line=; echo "error: $text" >&2',
        f'  {_attempt(plan, "setup")} "$text"; exit {MISTAKE}',
        "}",
        """trap 'code=$?; [ -z "$mscgan_line" ] || mscgan_setup "ended the script with exit code $code"' EXIT""",
        *(f'mscgan_line={shlex.quote(line)}\n{line} || mscgan_setup "failed with exit code $?"' for line in lines),
        "mscgan_line=",
        "set +eu  # of such a file: what a failure of the ranks means, attempt.py says",
    ]


def _teardown(plan: runs.Plan) -> list[str]:
    return ["code=$?", f'{_attempt(plan, "end")} "$code"']


def _attempt(plan: runs.Plan, what: str) -> str:
    program = [sys.executable, "-P", f"{plan.folder}/snapshot/launch/attempt.py", what, plan.folder]
    return shlex.join(program)


def _python(plan: runs.Plan) -> str:
    """What runs the tasks, after srun's own arguments. -P: the checkout, where the job stands, must not come before
    the snapshot."""
    container = plan.settings.get("container", "")
    if not container:
        return f"{shlex.quote(sys.executable)} -P"
    mounts = ",".join(mount if ":" in mount else f"{mount}:{mount}" for mount in _mounts(plan))
    if container.endswith(".sif"):
        before = ["apptainer", "exec", "--nv", "--bind", mounts, "--pwd", plan.cwd, container]
    else:  # pyxis: srun itself enters the image
        before = [*_image(plan), f"--container-mounts={mounts}", f"--container-workdir={plan.cwd}"]
    return " ".join([*map(_quoted_for_node, before), "python3 -P"])


def _quoted_for_node(text: str) -> str:
    """One word of the script, in which the node fills in its own variables, as in data.stage_to=$SLURM_TMPDIR."""
    if "$" not in text:
        return shlex.quote(text)
    escaped = re.sub(r'(["`\\]|\$(?![\w{]))', r"\\\1", text)
    return '"' + re.sub(r"\$\{?(\w+)\}?", r"${\1:?is not set on this node}", escaped) + '"'


def _mounts(plan: runs.Plan) -> list[str]:
    """Folders that a container must see under their own names, and what the user mounts.

    Raises:
        UserError: a name that the list of mounts would be cut at.
    """
    weights = os.environ.get("MSCGAN_WEIGHTS") or os.path.expanduser("~/.cache/mscgan/weights")  # mscgan/weights.py
    paths = [plan.cwd, plan.folder, *([weights] if os.path.isdir(weights) else [])]
    found = set(plan.settings.get("mount", []))
    for work in plan.works:
        paths += [work.run, work.shards, *work.folders]
        if work.stage_to:
            paths.append(work.stage_to)
    for path in filter(None, paths):
        if path.startswith("$"):
            found.add(path)
            continue
        for name in (os.path.abspath(Path(plan.cwd, path)), os.path.realpath(Path(plan.cwd, path))):
            if "," in name or ":" in name:
                raise UserError(f"a container cannot see {name}: the list of its mounts is cut at , and : ; rename it")
            found.add(name)
    return sorted(found)


@contextmanager
def _environment() -> Iterator[None]:
    """What sbatch sees. Outside a job all that the user's shell has, but for the SBATCH_ variables whose options stand
    in the script, which they would win over. Inside a job nothing of that job, but which cluster this is."""
    if "SLURM_JOB_ID" in os.environ:
        conf = os.environ.get("SLURM_CONF")
        with clean_env():
            if conf:
                os.environ["SLURM_CONF"] = conf
            yield
        return
    hidden = {*options.VARIABLES, *options.TAKEN_VARIABLES} & set(os.environ)
    before = {name: os.environ.pop(name) for name in hidden}
    try:
        yield
    finally:
        os.environ.update(before)
