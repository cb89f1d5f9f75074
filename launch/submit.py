"""Starts training, evaluation, generation, shard building or the benchmarks: on SLURM if a controller answers, or here.

    python launch/submit.py --nodes 4 --config market1501 data.root=DIR
    python launch/submit.py --config market1501 data.root=DIR --sweep train.lr=1e-4,2e-4 --sweep train.seed=0,1
    python launch/submit.py --job evaluate run=runs/RUN -- --pairs 1000
    python launch/submit.py --job shards -- synthetic --out DIR

`run=FOLDER` (or the preset's `run:`) is the run's folder, and the same command again goes on in it; without one, a new
folder with a unique name is made under runs/. Each launch keeps its records, code and logs in a folder inside.
"""

import argparse
import hashlib
import itertools
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from launch import guard, options, runs, sbatch, slurm, snapshot
from mscgan import config as configuration
from mscgan import files, schedule
from mscgan.checks import check_trained, check_weights
from mscgan.data.manifest import check_size, read_manifest
from mscgan.errors import UserError, run
from mscgan.rates import check_steps

ROOT = Path(__file__).resolve().parents[1]
JOBS = ("train", "evaluate", "generate", "shards", "throughput")
OF_A_RUN = ("evaluate", "generate")  # jobs that take the configuration of the run they work on


@dataclass
class Target:
    """One run of the launch: its resolved configuration (None but for training) and its folder."""

    config: configuration.Config | None
    folder: str


def main() -> int:
    os.umask(0o077)
    given, extra = _arguments()
    settings = options.resolve(given)
    if given.job in runs.ONE_PROCESS:
        settings |= {"nodes": "1", "tasks_per_node": "1"} | ({"gpus_per_node": "0"} if given.job == "shards" else {})
    targets = _targets(given)
    on_slurm = not given.prepare and slurm.controller_up()
    plan = _plan(given, extra, settings, targets, on_slurm)
    if given.dry_run:
        return _dry_run(plan, targets)
    if given.prepare:
        return _prepare_here(plan, targets)
    if _complete(plan, targets):
        return 0
    if on_slurm:
        sbatch.check(plan)
        ranks = int(plan.settings["nodes"]) * (plan.gpus or int(plan.settings.get("tasks_per_node", 1)))
    else:
        ranks = _processes_here(plan, targets)
    _check_work(plan, targets, ranks, on_slurm)
    if not on_slurm:
        plan.preflight = False  # one machine: what is wrong shows at once; starting twice costs more than it tells
        plan.here = True
    with guard.only_submit(plan):
        guard.check_free(plan, on_slurm)
        _prepare(plan, targets)
        job = sbatch.submit(plan) if on_slurm else runs.announce(plan)
    return _on_slurm(plan, job, given.follow) if on_slurm else _here(plan, ranks)


def _on_slurm(plan: runs.Plan, job: str, follow: bool) -> int:
    several = f"{len(plan.works)} runs in {Path(plan.folder).parent}"
    print(f"job {job}: {plan.works[0].run if len(plan.works) == 1 else several}")
    if follow:
        from launch.follow import follow_job

        return follow_job(plan)
    print(f"follow it with: python launch/jobs.py logs -f {job}")
    return 0


def _complete(plan: runs.Plan, targets: list[Target]) -> bool:
    """Says it of a training that has nothing left to do in any of its runs, and refuses one that may not go on."""
    facts = [runs.facts(work.run, schedule.SCHEMA) for work in plan.works]
    if plan.kind != "train" or not all(facts):
        return False
    done = []
    for target, found in zip(targets, facts, strict=True):
        assert target.config, "training has a configuration"
        if target.config.resume == "never":
            return False  # training refuses it
        schedule.check(target.config, found, f"{target.folder}/checkpoints/{runs.newest_checkpoint(target.folder)}")
        done.append(schedule.complete(target.config, found))
    if not all(done):
        return False
    for target, found in zip(targets, facts, strict=True):
        print(schedule.ending(target.folder, f"already complete: {found['pairs']} pairs in {target.folder}"))
    return True


def _processes_here(plan: runs.Plan, targets: list[Target]) -> int:
    from launch import local

    trained = [target.config.train for target in targets if target.config]
    return local.processes(plan, [train.batch // train.accumulate for train in trained])


def _here(plan: runs.Plan, count: int) -> int:
    from launch import local

    what = f"{count} process{'es' * (count > 1)}, {plan.works[0].run}"
    print(f"no SLURM controller answers, so this runs on this machine: {what}", flush=True)
    return local.run_here(plan, count)


def _arguments() -> tuple[argparse.Namespace, list[str]]:
    """The launcher's own arguments, and those after `--`, which go to the program."""
    parser = argparse.ArgumentParser(
        prog="python launch/submit.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--job", choices=JOBS, default="train", help="what to run (default: train)")
    parser.add_argument("--config", metavar="PRESET", help="a preset (market1501, deepfashion, demo) or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes; mscgan/keys.py lists the keys")
    parser.add_argument(
        "--sweep", action="append", default=[], metavar="key=a,b,c", help="one run a value, as a job array"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the sbatch script and the configuration, and stop"
    )
    parser.add_argument("--follow", action="store_true", help="show the log until the job ends; exit with its code")
    parser.add_argument(
        "--prepare", action="store_true", help="make the launch folder, print it, and stop (for the .sbatch files)"
    )
    options.add_to(parser)
    own, extra = sys.argv[1:], []
    if "--" in own:
        own, extra = own[: own.index("--")], own[own.index("--") + 1 :]
    given = parser.parse_intermixed_args(own)
    for text in [*given.overrides, *given.sweep, given.config or ""]:
        options.plain(text, "an argument")
    for text in extra:
        options.plain(text, "an argument after --")
    if given.job == "train" and not given.config:
        raise UserError("--job train needs --config PRESET, for example --config market1501")
    if given.job not in ("train", *OF_A_RUN) and (given.overrides or given.sweep or given.config):
        raise UserError(f"--job {given.job} takes its arguments after --, for example: --job {given.job} -- --help")
    unused = [text for text in given.overrides if not text.startswith("run=")] + given.sweep
    if given.job in OF_A_RUN and unused:
        raise UserError(
            f"--job {given.job} takes the configuration of its run, so {unused[0]!r} would do nothing; give run=FOLDER "
            f"and, after --, what `python -m mscgan.{given.job} --help` lists"
        )
    return given, extra


def _targets(given: argparse.Namespace) -> list[Target]:
    """The runs: one, or one for each combination of the swept values; where none names a folder, with a unique one."""
    name = runs.unique_name(Path(given.config).stem if given.config else given.job)
    if given.job in OF_A_RUN:
        folder = given.overrides[-1].removeprefix("run=") if given.overrides else ""
        if not folder and given.config:
            folder = configuration.load(given.config).run
        if not folder:
            raise UserError(f"--job {given.job} needs the run it works on: give run=FOLDER")
        return [Target(None, folder)]
    if given.job != "train":
        return [Target(None, f"runs/{name}")]
    base = configuration.load(given.config, given.overrides)
    base.run = base.run or f"runs/{name}"
    if not given.sweep:
        return [Target(base, base.run)]
    targets = []
    for number, changes in enumerate(itertools.product(*(_swept(text) for text in given.sweep))):
        config = configuration.load(given.config, [*given.overrides, *changes])
        config.run = f"{base.run}/{number}-" + re.sub(r"[^\w.=+-]", "_", "-".join(changes))[:100]
        targets.append(Target(config, config.run))
    return targets


def _swept(text: str) -> list[str]:
    """key=a,b,c as key=a, key=b, key=c; commas inside brackets belong to a value."""
    key, equals, values = text.partition("=")
    found = re.findall(r"(?:\[[^\]]*\]|[^,\[])+", values)
    if not key or not equals or not found:
        raise UserError(f"--sweep is {text!r}; expected key=a,b,c, for example --sweep train.lr=1e-4,2e-4")
    return [f"{key}={value}" for value in found]


def _plan(
    given: argparse.Namespace, extra: list[str], settings: dict, targets: list[Target], on_slurm: bool
) -> runs.Plan:
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
        }[given.job] + extra
        work = runs.Work(run_folder, arguments)
        if given.job == "train":
            assert target.config, "training has a configuration"
            work.shards, work.stage_to = target.config.data.root, target.config.data.stage_to
            manifest = Path(work.shards) / "manifest.json"
            if work.shards and manifest.is_file():
                work.manifest_sha256 = hashlib.sha256(manifest.read_bytes()).hexdigest()
        works.append(work)
    name = f"mscgan-{given.job}-{label[-6:]}"
    return runs.Plan(
        name=name, kind=given.job, folder=folder, cwd=os.getcwd(), commit="", works=works,
        job_name=guard.job_name(given.job, base), gpus=_gpus(given.job, settings, on_slurm),
        crash_retries=int(settings["crash_retries"]), stalled_tries=int(settings["stalled_tries"]),
        hang_seconds=float(settings["hang_seconds"]),
        preflight=settings["preflight"] == "true" and given.job == "train", settings=settings,
    )  # fmt: skip


def _dry_run(plan: runs.Plan, targets: list[Target]) -> int:
    """Prints a script that sbatch accepts, with the configuration as comments after it. Makes no folder."""
    if plan.settings["gpus_per_node"] == "auto" and not plan.gpus:
        print("note: no SLURM here that could say how many GPUs a node has; give --gpus-per-node N", file=sys.stderr)
    print(sbatch.script(plan))
    for target in targets:
        if target.config:
            print(f"\n# the configuration of {target.folder}")
            print("\n".join(f"# {line}" for line in configuration.text(target.config).splitlines()))
    return 0


def _gpus(kind: str, settings: dict, on_slurm: bool) -> int:
    """GPUs a node: as asked for, or what the partition's nodes have; one for a job of one process."""
    if settings["gpus_per_node"] != "auto":
        count = int(settings["gpus_per_node"])
    else:
        count = slurm.gpus_per_node(settings.get("partition", "")) if on_slurm else 0
    return min(count, 1) if kind in runs.ONE_PROCESS else count


def _check_work(plan: runs.Plan, targets: list[Target], ranks: int, on_slurm: bool) -> None:
    """Says before any folder is made or job queued what the programs would refuse once they run."""
    if plan.kind in OF_A_RUN and "dependency" not in plan.settings:  # else the run may be yet to come
        check_trained(Path(targets[0].folder))
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
        if train.init and not runs.newest_checkpoint(target.folder):
            if not (on_slurm and _maybe_on_nodes(train.init, target.folder)):
                check_weights(Path(train.init))


def _maybe_on_nodes(file: str, run: str) -> bool:
    """Whether the nodes may have a file that this machine has not; says so. Nodes and this machine share the file
    system of the run's folder, so what is missing there is missing everywhere."""

    def device(path: str) -> int:
        return next(place for place in [Path(path), *Path(path).absolute().parents] if place.exists()).stat().st_dev

    maybe = not Path(file).exists() and device(file) != device(run)
    if maybe:
        print(f"note: {file} is not on this machine; the job fails if the nodes do not have it either", file=sys.stderr)
    return maybe


def _prepare_here(plan: runs.Plan, targets: list[Target]) -> int:
    """For the .sbatch files, inside their job: makes the launch folder at the first attempt, finds it at later ones."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if not job:
        raise UserError("--prepare is for the .sbatch files; submit one with sbatch, for example launch/train.sbatch")
    if len(targets) > 1:
        raise UserError("the .sbatch files take no --sweep; use launch/submit.py for it")
    earlier = [folder for folder in runs.registered() if runs.read_job(folder).get("slurm") == job]
    if int(os.environ.get("SLURM_RESTART_COUNT", "0")) and earlier:
        print(earlier[-1])
        return 0
    plan.gpus, tasks = (int(os.environ.get(f"SLURM_{name}", "0")) for name in ("GPUS_ON_NODE", "NTASKS_PER_NODE"))
    if plan.gpus and plan.kind not in runs.ONE_PROCESS and tasks != plan.gpus:
        raise UserError(
            f"{plan.gpus} GPUs a node but {tasks or 'no number of'} tasks: one process a GPU is expected; give sbatch "
            f"--ntasks-per-node={plan.gpus}"
        )
    plan.job_name = os.environ["SLURM_JOB_NAME"]
    _check_work(plan, targets, ranks=int(os.environ.get("SLURM_JOB_NUM_NODES", "1")) * (tasks or 1), on_slurm=False)
    with guard.only_submit(plan):
        guard.check_free(plan, on_slurm=True)
        _prepare(plan, targets)
        runs.write_job(plan.folder, slurm=job)
    runs.register(plan.folder)
    if Path(plan.folder) not in runs.registered():  # the next attempt would begin anew, and so for ever
        raise UserError("a requeued job finds its launch by that list; set XDG_STATE_HOME to a folder you may write")
    print(plan.folder)
    return 0


def _prepare(plan: runs.Plan, targets: list[Target]) -> None:
    """Makes the folders, with the code, the configurations and the plan in them."""
    for path in [Path(plan.folder).parent, *(Path(work.run) for work in plan.works)]:
        runs.private_folder(path)
    folder = runs.private_folder(Path(plan.folder))
    plan.commit = snapshot.take(ROOT, folder / "snapshot")
    for index, target in enumerate(targets):
        if target.config:
            files.write(folder / f"config-{index}.yaml", configuration.text(target.config))
    runs.write_plan(plan)


if __name__ == "__main__":
    run(main)
