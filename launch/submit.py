"""Starts training, evaluation, generation, shard building or the benchmarks: on SLURM if a controller answers, or here.

    python launch/submit.py --nodes 4 --config market1501 data.root=DIR
    python launch/submit.py --config market1501 data.root=DIR --sweep train.lr=1e-4,2e-4 --sweep train.seed=0,1
    python launch/submit.py --job evaluate run=runs/RUN -- --pairs 1000
    python launch/submit.py --job shards -- synthetic --out DIR
    python launch/submit.py --job table2 --config market1501 data.root=DIR --seeds 3

`run=FOLDER` (or the preset's `run:`) is the run's folder, and the same command again goes on in it; without one, a new
folder with a unique name is made under runs/. Each launch keeps its records, code and logs in a folder inside.
`--job table2` trains and scores every row of the paper's table 2, does only what is missing, and writes the table into
run=FOLDER or runs/table2-PRESET.
"""

import argparse
import hashlib
import itertools
import os
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from launch import endings, guard, options, runs, sbatch, start, table2_start
from mscgan import config as configuration
from mscgan import files, schedule
from mscgan.arguments import Parser
from mscgan.errors import UserError, run, say
from mscgan.paths import expanded

JOBS = ("train", "evaluate", "generate", "shards", "throughput", "table2")


BEFORE = "give sbatch {} itself, before that name"
LATE = {
    "on": "sbatch has chosen",
    "tasks_per_node": BEFORE.format("--ntasks-per-node"),
    "cpus_per_task": BEFORE.format("--cpus-per-task"),
    "array_parallelism": "there is no sweep",
    "sbatch": BEFORE.format("these options"),
    "signal_seconds": BEFORE.format("--signal=USR2@SECONDS"),
}
# Jobs whose files are for others too: they are readable as the user's umask says. A run's and a launch's are private.
FOR_OTHERS = ("evaluate", "generate", "shards", "throughput")


def main() -> int:
    umask = os.umask(0o077)
    given, extra = _arguments()
    settings = options.resolve(given)
    if given.job == "table2":
        return table2_start.submit(given, settings)
    targets = _targets(given)
    on_slurm = not given.prepare and start.on_slurm(settings)
    targets = _incomplete(given, targets)
    if not targets:
        return 0
    plan = start.plan_of(given.job, extra, settings, targets, on_slurm)
    plan.umask = umask if plan.kind in FOR_OTHERS else plan.umask
    if given.prepare:
        return _prepare_here(plan, targets)
    waits = "dependency" in settings
    if given.dry_run:
        start.dry_run(plan, targets, on_slurm, waits)
        return 0
    ranks = start.checked(plan, targets, on_slurm, waits)
    job = start.start(plan, targets, on_slurm)
    if on_slurm:
        several = f"{len(plan.works)} runs in {Path(plan.folder).parent}"
        print(f"job {job}: {plan.works[0].run if len(plan.works) == 1 else several}")
        return start.queued(plan, job, given.follow)
    from launch import local

    with local.Stop() as stop:
        return start.here(plan, ranks, stop)


def _incomplete(given: argparse.Namespace, targets: list[start.Target]) -> list[start.Target]:
    """Of the runs of a training those that have something left to do; says it of the others, and refuses one that may
    not go on."""
    out = sys.stderr if given.prepare else sys.stdout  # the .sbatch files read the launch folder from stdout
    left = []
    for target in targets:
        found = runs.facts(target.folder, schedule.SCHEMA) if given.job == "train" else {}
        if not found or not target.config or target.config.resume == "never":  # training refuses the last
            left.append(target)
            continue
        schedule.check(target.config, found, f"{target.folder}/checkpoints/{runs.newest_checkpoint(target.folder)}")
        if not schedule.complete(target.config, found) or not runs.results_there(target.folder):
            left.append(target)
            continue
        print(schedule.ending(target.config, f"already complete: {found['pairs']} pairs in {target.folder}"), file=out)
    return left


def _arguments() -> tuple[argparse.Namespace, list[str]]:
    """The launcher's own arguments, and those after `--`, which go to the program."""
    parser = Parser(
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
    parser.add_argument("--seeds", metavar="N", type=int, help="of --job table2: train each row with seeds 0 to N - 1")
    parser.add_argument("--follow", action="store_true", help="show the log until the job ends; exit with its code")
    parser.add_argument(
        "--prepare", action="store_true", help="make the launch folder, print it, and stop (for the .sbatch files)"
    )
    options.add_to(parser)
    own, extra = sys.argv[1:], []
    if "--" in own:
        own, extra = own[: own.index("--")], own[own.index("--") + 1 :]
    given = parser.parse_intermixed_args(options.joined(own))
    for text in [*given.overrides, *given.sweep, given.config or ""]:
        options.plain(text, "an argument")
    for text in extra:
        options.plain(text, "an argument after --")
    given.overrides = [_with_path(text) for text in given.overrides]
    if given.job == "train" and not given.config:
        raise UserError("--job train needs --config PRESET, for example --config market1501")
    if given.job == "table2" and (not given.config or given.sweep or given.prepare or extra):
        raise UserError(
            "--job table2 takes --config PRESET, key=value and --seeds N, for example --config market1501 data.root=DIR"
        )
    if given.job == "train" and extra:
        raise UserError(f"--job train takes key=value alone, and nothing after --; give {extra[0]} before it")
    if given.seeds is not None and (given.job != "table2" or given.seeds < 1):
        raise UserError(f"--seeds {given.seeds}: give a number above 0, with --job table2; others have train.seed=N")
    if given.job not in ("train", "table2", *start.OF_A_RUN) and (given.overrides or given.sweep or given.config):
        raise UserError(f"--job {given.job} takes its arguments after --, for example: --job {given.job} -- --help")
    if given.prepare:
        _refuse_beside_prepare(given)
    unused = [text for text in given.overrides if not text.startswith("run=")] + given.sweep
    if given.job in start.OF_A_RUN and unused:
        raise UserError(
            f"--job {given.job} takes the configuration of its run, so {unused[0]!r} would do nothing; give run=FOLDER "
            f"and, after --, what `python -m mscgan.{given.job} --help` lists"
        )
    return given, extra


def _refuse_beside_prepare(given: argparse.Namespace) -> None:
    """What stands after a .sbatch file's name comes too late for sbatch, and there is nobody to look on."""
    if "SLURM_JOB_ID" not in os.environ:
        raise UserError("--prepare is for the .sbatch files; submit one with sbatch, for example launch/train.sbatch")
    for name, option in options.OPTIONS.items():
        if getattr(given, name) is None or not (option.sbatch or name in LATE):
            continue
        flag = f"--{name.replace('_', '-')}"
        raise UserError(f"{flag} after the .sbatch file's name does nothing; {LATE.get(name, BEFORE.format(flag))}")
    for name in ("follow", "dry_run", "sweep", "seeds"):
        if getattr(given, name):
            raise UserError(f"the .sbatch files take no --{name.replace('_', '-')}; use launch/submit.py for it")


def _targets(given: argparse.Namespace) -> list[start.Target]:
    """The runs: one, or one for each combination of the swept values; where none names a folder, with a unique one."""
    name = runs.unique_name(Path(given.config).stem if given.config else given.job)
    if given.job in start.OF_A_RUN:
        folder = given.overrides[-1].removeprefix("run=") if given.overrides else ""
        if not folder and given.config:
            folder = configuration.load(given.config).run
        if not folder:
            raise UserError(f"--job {given.job} needs the run it works on: give run=FOLDER")
        return [start.Target(None, folder)]
    if given.job != "train":
        return [start.Target(None, f"runs/{name}")]
    base = configuration.load(given.config, given.overrides)
    base.run = base.run or f"runs/{name}"
    if not given.sweep:
        return [start.Target(base, base.run)]
    swept = [_swept(text) for text in given.sweep]
    keys = [changes[0].partition("=")[0] for changes in swept]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise UserError(f"--sweep {twice[0]} is given twice; give all its values in one, {twice[0]}=a,b,c")
    targets: list[start.Target] = []
    for changes in itertools.product(*swept):
        config = configuration.load(given.config, [*given.overrides, *changes])
        config.run = f"{base.run}/{_folder_name(config, keys)}"
        if config in [target.config for target in targets]:
            raise UserError(f"--sweep: {' '.join(changes)} is there twice; give each value once")
        targets.append(start.Target(config, config.run))
    return targets


def _swept(text: str) -> list[str]:
    """key=a,b,c as key=a, key=b, key=c; commas inside brackets belong to a value."""
    key, equals, values = text.partition("=")
    found = re.findall(r"(?:\[[^\]]*\]|[^,\[])+", values)
    if not key or not equals or not found or ",".join(found) != values:  # an unset variable of the shell, a bracket
        raise UserError(f"--sweep is {text!r}; expected key=a,b,c, for example --sweep train.lr=1e-4,2e-4")
    if key == "run":
        raise UserError("--sweep run: each run of a sweep has a folder of its own below run=FOLDER; sweep another key")
    return [f"{key}={value}" for value in found]


def _folder_name(config: configuration.Config, keys: list[str]) -> str:
    """A run's folder in its sweep: what it is there for, whichever other values are swept and in which order. A part
    of the hash makes good for what a folder's name cannot hold."""
    values = {
        leaf: str(value).replace(" ", "")
        for leaf, value in sorted(configuration.leaves(config).items())
        if any(f"{leaf}.".startswith(f"{key}.") for key in keys)
    }
    text = "-".join(f"{leaf}={value}" for leaf, value in values.items())
    name = re.sub(r"[^\w.=+-]", "_", text)[:100]
    return name if name == text else f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _with_path(override: str) -> str:
    """`run=~/x` with the folder that it means; the configuration's other paths are its own to read."""
    key, _, value = override.partition("=")
    return f"run={expanded(value, override)}" if key == "run" and value else override


def _prepare_here(plan: runs.Plan, targets: list[start.Target]) -> int:
    """For the .sbatch files, inside their job: makes the launch folder at the first attempt. Later ones run the
    batch.sh that is put into it."""
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_TASK_ID" in os.environ:
        raise UserError("the .sbatch files take no --array; use launch/submit.py --sweep, or sbatch once a run")
    endings.check_job(job)
    plan.gpus, tasks = (int(os.environ.get(f"SLURM_{name}", "0")) for name in ("GPUS_ON_NODE", "NTASKS_PER_NODE"))
    if plan.gpus and plan.kind not in runs.ONE_PROCESS and tasks != plan.gpus:
        raise UserError(
            f"{plan.gpus} GPUs a node but {tasks or 'no number of'} tasks: one process a GPU is expected; give sbatch "
            f"--ntasks-per-node={plan.gpus}"
        )
    plan.job_name = os.environ["SLURM_JOB_NAME"]
    nodes = os.environ.get("SLURM_JOB_NUM_NODES", "1")
    plan.settings |= {"nodes": nodes, "cpus_per_task": os.environ.get("SLURM_CPUS_PER_TASK", "1")}
    batch = sbatch.batch(plan)
    start.check_work(plan, targets, [int(nodes) * (tasks or 1)], on_slurm=False)
    with guard.only_submit(plan):
        guard.check_free(plan, on_slurm=True)
        start.prepare(plan, targets)
        files.write(Path(plan.folder) / "batch.sh", batch)
        # The .sbatch files look for these two.
        runs.write_job(plan.folder, slurm=job, cluster=os.environ.get("SLURM_CLUSTER_NAME", ""))
    runs.register(plan.folder)
    if Path(plan.folder) not in runs.registered():  # the next attempt would begin anew, and so for ever
        raise UserError("a requeued job finds its launch by that list; set XDG_STATE_HOME to a folder you may write")
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    say(f"job {job} runs the code of {start.ROOT} as it is now, {now}, commit {plan.commit}: {plan.folder}/snapshot")
    print(plan.folder)
    return 0


if __name__ == "__main__":
    run(main)
