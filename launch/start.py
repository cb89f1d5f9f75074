"""From the runs that are asked for to a launch: its plan, what of it is refused, and its start, on SLURM or here."""

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from launch import endings, guard, notations, options, runs, sbatch, slurm, snapshot
from mscgan import config as configuration
from mscgan import files, schedule
from mscgan.checks import check_trained, check_weights
from mscgan.data.manifest import check_size, read_manifest
from mscgan.errors import UserError, say
from mscgan.rates import check_steps

ROOT = Path(__file__).resolve().parents[1]
WITHOUT_GPU = ("shards", "table2")
OF_A_RUN = ("evaluate", "generate")  # jobs that take the configuration of the run they work on


@dataclass
class Target:
    """One run of the launch: its resolved configuration (None but for training) and its folder."""

    config: configuration.Config | None
    folder: str


def on_slurm(settings: options.Settings) -> bool:
    """Whether SLURM is to run it, or this machine.

    Raises:
        UserError: SLURM was asked for or is installed, and its controller does not answer. A login node is not the
            place for a training that was meant for the cluster.
    """
    if settings["on"] == "here":
        return False
    up, trouble = slurm.controller()
    if up or (settings["on"] == "auto" and not trouble):
        return up
    if trouble:
        raise UserError(
            f"SLURM is installed here, but its controller does not answer ({trouble}); try again when it does, or give "
            "--on here to run on this machine"
        )
    raise UserError("--on slurm: no SLURM is set up on this machine; submit where sbatch works, or leave --on out")


def plan_of(
    kind: str, extra: list[str], settings: options.Settings, targets: list[Target], slurm_runs_it: bool
) -> runs.Plan:
    settings = _of_kind(kind, settings)
    base = targets[0].folder if len(targets) == 1 else str(Path(targets[0].folder).parent)
    label = runs.unique_name("launch")
    folder = os.path.abspath(f"{base}/{label}")
    for path in (folder, os.getcwd()):  # both are written into the script
        runs.check_path(path)
    works = []
    named = named_folders(extra)
    for index, target in enumerate(targets):
        run_folder = os.path.abspath(target.folder)
        arguments = {
            "train": ["-m", "mscgan.train", "--config", f"{folder}/config-{index}.yaml"],
            "evaluate": ["-m", "mscgan.evaluate", "--run", run_folder],
            "generate": ["-m", "mscgan.generate", "--run", run_folder],
            "shards": [f"{folder}/snapshot/shards/build.py"],
            "throughput": [f"{folder}/snapshot/benchmarks/run_throughput.py"],
            "table2": [f"{folder}/snapshot/launch/table2_result.py", run_folder],
        }[kind] + extra
        work = runs.Work(run_folder, arguments, folders=[*named])
        if kind == "train":
            assert target.config, "training has a configuration"
            work.shards, work.stage_to = target.config.data.root, target.config.data.stage_to
            manifest = Path(work.shards) / "manifest.json"
            if work.shards and manifest.is_file():
                work.manifest_sha256 = hashlib.sha256(manifest.read_bytes()).hexdigest()
            if target.config.train.init:
                work.folders.append(str(Path(target.config.train.init).absolute().parent))
        elif kind in OF_A_RUN and (saved := Path(run_folder, "config.yaml")).is_file():
            work.folders.append(configuration.load(str(saved)).data.root)
        works.append(work)
    name = f"mscgan-{kind}-{label[-6:]}"
    return runs.Plan(
        name=name, kind=kind, folder=folder, cwd=os.getcwd(), commit="", works=works,
        job_name=str(settings.get("job_name") or guard.job_name(kind, base)),
        gpus=_gpus(kind, settings, slurm_runs_it),
        crash_retries=int(str(settings["crash_retries"])), stalled_tries=int(str(settings["stalled_tries"])),
        hang_seconds=float(str(settings["hang_seconds"])),
        preflight=settings["preflight"] == "true" and kind == "train", settings=settings,
    )  # fmt: skip


def _of_kind(kind: str, settings: options.Settings) -> options.Settings:
    """The settings of a kind of job: one process takes one GPU of one node at most, and some take none."""
    settings = dict(settings)
    if kind not in runs.ONE_PROCESS:
        return settings
    most = 0 if kind in WITHOUT_GPU else 1
    settings |= {"nodes": "1", "tasks_per_node": "1"}
    if "gres" in settings:
        settings["gres"] = notations.with_gpus(str(settings["gres"]), most)
    if settings["gpus_per_node"] != "auto" or not most:
        kind_of_gpu, colon, _ = str(settings["gpus_per_node"]).rpartition(":")
        count = min(options.gpus_asked(settings | {"gres": ""}) or 0, most)
        settings["gpus_per_node"] = f"{kind_of_gpu}{colon}{count}" if count else "0"
    return settings


def _gpus(kind: str, settings: options.Settings, slurm_runs_it: bool) -> int:
    """GPUs a node: as asked for, or what the partition's nodes have; one for a job of one process."""
    count = options.gpus_asked(settings)
    if count is None:
        count = slurm.gpus_per_node(str(settings.get("partition", ""))) if slurm_runs_it else 0
    return min(count, 1) if kind in runs.ONE_PROCESS else count


def named_folders(arguments: list[str]) -> list[str]:
    """The folders that a program's arguments name, whether the files in them are there or are to be made."""
    found = set()
    for text in arguments:
        name = os.path.expandvars(os.path.expanduser(text.partition("=")[2] if text.startswith("-") else text))
        path = Path(os.path.abspath(name))
        try:
            if name and (os.sep in name or path.exists()):
                found.add(next(place for place in (path, *path.parents) if place.is_dir()))
        except OSError:
            continue  # too long for a path, so it is none
    return sorted(str(folder) for folder in found - {Path("/")})


def checked(plan: runs.Plan, targets: list[Target], slurm_runs_it: bool, waits: bool) -> int:
    """Refuses what could not run. Returns the number of processes, of a range of nodes the most.

    waits: for other jobs, which may make what is not there yet.
    """
    options.say_not_used()
    if slurm_runs_it:
        _check_time(plan)
        sbatch.check(plan)
        if note := endings.preemption(plan.settings.get("partition", ""), plan.settings.get("qos", "")):
            runs.say_once(note)
    counts = ranks_of(plan) if slurm_runs_it else [_processes_here(plan, targets)]
    check_work(plan, targets, counts, slurm_runs_it, waits)
    if not slurm_runs_it:
        plan.preflight = False  # one machine: what is wrong shows at once; starting twice costs more than it tells
        plan.here = True
    return counts[-1]


def _check_time(plan: runs.Plan) -> None:
    time = plan.settings["time"]
    endings.check_time(time, notations.minutes(time), int(plan.settings["signal_seconds"]))


def ranks_of(plan: runs.Plan) -> list[int]:
    """The numbers of processes that the job may have, one for each number of nodes that it may get."""
    tasks = plan.gpus or int(plan.settings.get("tasks_per_node", 1))
    return [nodes * tasks for nodes in notations.node_counts(plan.settings["nodes"])]


def check_work(
    plan: runs.Plan,
    targets: list[Target],
    counts: list[int],
    on_slurm: bool,
    waits: bool = False,
    elsewhere: bool = False,
) -> None:
    """Says before any folder is made or job queued what the programs would refuse once they run.

    counts: the numbers of ranks that there may be. waits: for other jobs, so that a run and first weights may be yet to
    come. elsewhere: on a cluster that this machine may share no disk with.
    """
    if plan.kind in OF_A_RUN and not waits and not elsewhere:
        for target in targets:
            check_trained(Path(target.folder))
    if plan.kind != "train":
        return
    for target in targets:
        assert target.config, "training has a configuration"
        data, train = target.config.data, target.config.train
        for ranks in counts:
            configuration.micro_batch(train.batch, ranks, train.accumulate)
            configuration.check_compile(train, ranks)
        check_steps(target.config)
        if not (data.root and on_slurm and _maybe_on_nodes(f"{data.root}/manifest.json", target.folder, elsewhere)):
            check_size(data.root, read_manifest(data.root, "train"), data.height, data.width)
        # A run that goes on does not read train.init again.
        if train.init and not waits and not runs.newest_checkpoint(target.folder):
            if not (on_slurm and _maybe_on_nodes(train.init, target.folder, elsewhere)):
                check_weights(Path(train.init), train.init_after, schedule.beginning(target.config)[2])


def _maybe_on_nodes(file: str, run: str, elsewhere: bool) -> bool:
    """Whether the nodes may have a file that this machine has not; says so. Nodes and this machine share the file
    system of the run's folder, so what is missing there is missing everywhere."""

    def device(path: str) -> int:
        return next(place for place in [Path(path), *Path(path).absolute().parents] if place.exists()).stat().st_dev

    maybe = not Path(file).exists() and (elsewhere or device(file) != device(run))
    if maybe:
        print(f"note: {file} is not on this machine; the job fails if the nodes do not have it either", file=sys.stderr)
    return maybe


def _processes_here(plan: runs.Plan, targets: list[Target]) -> int:
    from launch import local

    trained = [target.config.train for target in targets if target.config]
    return local.processes(plan, [train.batch // train.accumulate for train in trained])


def start(plan: runs.Plan, targets: list[Target], on_slurm: bool) -> str:
    """Makes the folders and queues the plan, or writes down that this process runs it. Returns the job's id."""
    with guard.only_submit(plan):
        guard.check_free(plan, on_slurm)
        prepare(plan, targets)
        return sbatch.submit(plan) if on_slurm else runs.announce(plan)


def prepare(plan: runs.Plan, targets: list[Target]) -> None:
    """Makes the folders, with the code, the configurations and the plan in them."""
    for path in [Path(plan.folder).parent, *(Path(work.run) for work in plan.works)]:
        runs.private_folder(path)
    folder = runs.private_folder(Path(plan.folder))
    plan.commit = snapshot.take(ROOT, folder / "snapshot")
    for index, target in enumerate(targets):
        if target.config:
            files.write(folder / f"config-{index}.yaml", configuration.text(target.config))
    runs.write_plan(plan)


def queued(plan: runs.Plan, job: str, follow: bool) -> int:
    if follow:
        from launch.follow import follow_job

        return follow_job(plan)
    print(f"follow it with: python launch/jobs.py logs -f {job}")
    return 0


def here(plan: runs.Plan, count: int, stop) -> int:
    from launch import local

    why = "this runs" if plan.settings["on"] == "here" else "no SLURM is set up here, so this runs"
    say(f"{why} on this machine: {count} process{'es' * (count > 1)}, {plan.works[0].run}", sys.stdout)
    return local.run_here(plan, count, stop)


def dry_run(plan: runs.Plan, targets: list[Target], slurm_runs_it: bool, waits: bool) -> None:
    """Prints a script that sbatch accepts, with the configuration as comments after it. Makes no folder.

    Where no SLURM runs it the script is for a cluster elsewhere, and what only that one knows is not looked at.

    Raises:
        UserError: what a start would refuse, after the script.
    """
    if not slurm_runs_it and options.gpus_asked(plan.settings) is None:
        print(
            "note: no SLURM here that could say how many GPUs a node has; give --gpus-per-node N (this is a cluster's "
            "script; without --dry-run and --nodes the command runs on this machine)",
            file=sys.stderr,
        )
    print(sbatch.script(plan))
    for target in targets:
        if target.config:
            print(f"\n# the configuration of {target.folder}")
            print("\n".join(f"# {line}" for line in configuration.text(target.config).splitlines()))
    sys.stdout.flush()  # before the error that may follow
    for folder in [Path(plan.folder).parent, *(Path(work.run) for work in plan.works)]:
        runs.check_writable(folder)
    snapshot.code(ROOT)
    if slurm_runs_it:
        checked(plan, targets, slurm_runs_it, waits)
        guard.check_free(plan, slurm_runs_it)
    else:
        _check_time(plan)
        check_work(plan, targets, ranks_of(plan), on_slurm=True, waits=waits, elsewhere=True)
