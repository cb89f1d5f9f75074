"""From the runs that are asked for to a launch: its plan, what of it is refused, and its start, on SLURM or here."""

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from launch import endings, guard, options, runs, sbatch, slurm, snapshot
from mscgan import config as configuration
from mscgan import files, schedule
from mscgan.checks import check_trained, check_weights
from mscgan.data.manifest import check_size, read_manifest
from mscgan.rates import check_steps

ROOT = Path(__file__).resolve().parents[1]
WITHOUT_GPU = ("shards", "table2")
OF_A_RUN = ("evaluate", "generate")  # jobs that take the configuration of the run they work on


@dataclass
class Target:
    """One run of the launch: its resolved configuration (None but for training) and its folder."""

    config: configuration.Config | None
    folder: str


def plan_of(kind: str, extra: list[str], settings: dict, targets: list[Target], on_slurm: bool) -> runs.Plan:
    settings = dict(settings)
    if kind in runs.ONE_PROCESS:
        settings |= {"nodes": "1", "tasks_per_node": "1"} | ({"gpus_per_node": "0"} if kind in WITHOUT_GPU else {})
    base = targets[0].folder if len(targets) == 1 else str(Path(targets[0].folder).parent)
    label = runs.unique_name("launch")
    folder = os.path.abspath(f"{base}/{label}")
    for path in (folder, os.getcwd()):  # both are written into the script
        runs.check_path(path)
    works = []
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
        work = runs.Work(run_folder, arguments)
        if kind == "train":
            assert target.config, "training has a configuration"
            work.shards, work.stage_to = target.config.data.root, target.config.data.stage_to
            manifest = Path(work.shards) / "manifest.json"
            if work.shards and manifest.is_file():
                work.manifest_sha256 = hashlib.sha256(manifest.read_bytes()).hexdigest()
        works.append(work)
    name = f"mscgan-{kind}-{label[-6:]}"
    return runs.Plan(
        name=name, kind=kind, folder=folder, cwd=os.getcwd(), commit="", works=works,
        job_name=guard.job_name(kind, base), gpus=_gpus(kind, settings, on_slurm),
        crash_retries=int(settings["crash_retries"]), stalled_tries=int(settings["stalled_tries"]),
        hang_seconds=float(settings["hang_seconds"]),
        preflight=settings["preflight"] == "true" and kind == "train", settings=settings,
    )  # fmt: skip


def _gpus(kind: str, settings: dict, on_slurm: bool) -> int:
    """GPUs a node: as asked for, or what the partition's nodes have; one for a job of one process."""
    if settings["gpus_per_node"] != "auto":
        count = int(settings["gpus_per_node"])
    else:
        count = slurm.gpus_per_node(settings.get("partition", "")) if on_slurm else 0
    return min(count, 1) if kind in runs.ONE_PROCESS else count


def checked(plan: runs.Plan, targets: list[Target], on_slurm: bool, waits: bool) -> int:
    """Refuses what could not run. Returns the number of processes.

    waits: for other jobs, which may make what is not there yet.
    """
    if on_slurm:
        time = plan.settings["time"]
        endings.check_time(time, options.minutes(time), int(plan.settings["signal_seconds"]))
        sbatch.check(plan)
        if note := endings.preemption(plan.settings.get("partition", ""), plan.settings.get("qos", "")):
            runs.say_once(note)
        ranks = int(plan.settings["nodes"]) * (plan.gpus or int(plan.settings.get("tasks_per_node", 1)))
    else:
        ranks = _processes_here(plan, targets)
    check_work(plan, targets, ranks, on_slurm, waits)
    if not on_slurm:
        plan.preflight = False  # one machine: what is wrong shows at once; starting twice costs more than it tells
        plan.here = True
    return ranks


def check_work(plan: runs.Plan, targets: list[Target], ranks: int, on_slurm: bool, waits: bool = False) -> None:
    """Says before any folder is made or job queued what the programs would refuse once they run.

    waits: for other jobs, so that a run and first weights may be yet to come.
    """
    if plan.kind in OF_A_RUN and not waits:
        for target in targets:
            check_trained(Path(target.folder))
    if plan.kind != "train":
        return
    for target in targets:
        assert target.config, "training has a configuration"
        data, train = target.config.data, target.config.train
        configuration.micro_batch(train.batch, ranks, train.accumulate)
        check_steps(target.config)
        if not (data.root and on_slurm and _maybe_on_nodes(f"{data.root}/manifest.json", target.folder)):
            check_size(data.root, read_manifest(data.root, "train"), data.height, data.width)
        # A run that goes on does not read train.init again.
        if train.init and not waits and not runs.newest_checkpoint(target.folder):
            if not (on_slurm and _maybe_on_nodes(train.init, target.folder)):
                check_weights(Path(train.init), train.init_after, schedule.beginning(target.config)[2])


def _maybe_on_nodes(file: str, run: str) -> bool:
    """Whether the nodes may have a file that this machine has not; says so. Nodes and this machine share the file
    system of the run's folder, so what is missing there is missing everywhere."""

    def device(path: str) -> int:
        return next(place for place in [Path(path), *Path(path).absolute().parents] if place.exists()).stat().st_dev

    maybe = not Path(file).exists() and device(file) != device(run)
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

    what = f"{count} process{'es' * (count > 1)}, {plan.works[0].run}"
    print(f"no SLURM controller answers, so this runs on this machine: {what}", flush=True)
    return local.run_here(plan, count, stop)


def dry_run(plan: runs.Plan, targets: list[Target]) -> int:
    """Prints a script that sbatch accepts, with the configuration as comments after it. Makes no folder."""
    if plan.settings["gpus_per_node"] == "auto" and not plan.gpus:
        print("note: no SLURM here that could say how many GPUs a node has; give --gpus-per-node N", file=sys.stderr)
    print(sbatch.script(plan))
    for target in targets:
        if target.config:
            print(f"\n# the configuration of {target.folder}")
            print("\n".join(f"# {line}" for line in configuration.text(target.config).splitlines()))
    return 0
