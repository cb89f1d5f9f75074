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
import itertools
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from launch import guard, options, runs, slurm, start, table2_start
from mscgan import config as configuration
from mscgan import schedule
from mscgan.errors import UserError, run

JOBS = ("train", "evaluate", "generate", "shards", "throughput", "table2")


def main() -> int:
    os.umask(0o077)
    given, extra = _arguments()
    settings = options.resolve(given)
    if given.job == "table2":
        return table2_start.submit(given, settings)
    targets = _targets(given)
    on_slurm = not given.prepare and slurm.controller_up()
    plan = start.plan_of(given.job, extra, settings, targets, on_slurm)
    if given.dry_run:
        return start.dry_run(plan, targets)
    if given.prepare:
        return _prepare_here(plan, targets)
    if _complete(plan, targets):
        return 0
    ranks = start.checked(plan, targets, on_slurm, waits="dependency" in settings)
    job = start.start(plan, targets, on_slurm)
    if on_slurm:
        several = f"{len(plan.works)} runs in {Path(plan.folder).parent}"
        print(f"job {job}: {plan.works[0].run if len(plan.works) == 1 else several}")
        return start.queued(plan, job, given.follow)
    from launch import local

    with local.Stop() as stop:
        return start.here(plan, ranks, stop)


def _complete(plan: runs.Plan, targets: list[start.Target]) -> bool:
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
        assert target.config, "training has a configuration"
        print(schedule.ending(target.config, f"already complete: {found['pairs']} pairs in {target.folder}"))
    return True


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
    parser.add_argument("--seeds", metavar="N", type=int, help="of --job table2: train each row with seeds 0 to N - 1")
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
    if given.job == "table2" and (not given.config or given.sweep or given.prepare or extra):
        raise UserError(
            "--job table2 takes --config PRESET, key=value and --seeds N, for example --config market1501 data.root=DIR"
        )
    if given.seeds is not None and (given.job != "table2" or given.seeds < 1):
        raise UserError(f"--seeds {given.seeds}: give a number above 0, with --job table2; others have train.seed=N")
    if given.job not in ("train", "table2", *start.OF_A_RUN) and (given.overrides or given.sweep or given.config):
        raise UserError(f"--job {given.job} takes its arguments after --, for example: --job {given.job} -- --help")
    unused = [text for text in given.overrides if not text.startswith("run=")] + given.sweep
    if given.job in start.OF_A_RUN and unused:
        raise UserError(
            f"--job {given.job} takes the configuration of its run, so {unused[0]!r} would do nothing; give run=FOLDER "
            f"and, after --, what `python -m mscgan.{given.job} --help` lists"
        )
    return given, extra


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
    targets = []
    for number, changes in enumerate(itertools.product(*(_swept(text) for text in given.sweep))):
        config = configuration.load(given.config, [*given.overrides, *changes])
        config.run = f"{base.run}/{number}-" + re.sub(r"[^\w.=+-]", "_", "-".join(changes))[:100]
        targets.append(start.Target(config, config.run))
    return targets


def _swept(text: str) -> list[str]:
    """key=a,b,c as key=a, key=b, key=c; commas inside brackets belong to a value."""
    key, equals, values = text.partition("=")
    found = re.findall(r"(?:\[[^\]]*\]|[^,\[])+", values)
    if not key or not equals or not found:
        raise UserError(f"--sweep is {text!r}; expected key=a,b,c, for example --sweep train.lr=1e-4,2e-4")
    return [f"{key}={value}" for value in found]


def _prepare_here(plan: runs.Plan, targets: list[start.Target]) -> int:
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
    ranks = int(os.environ.get("SLURM_JOB_NUM_NODES", "1")) * (tasks or 1)
    start.check_work(plan, targets, ranks, on_slurm=False, waits="dependency" in plan.settings)
    with guard.only_submit(plan):
        guard.check_free(plan, on_slurm=True)
        start.prepare(plan, targets)
        runs.write_job(plan.folder, slurm=job)
    runs.register(plan.folder)
    if Path(plan.folder) not in runs.registered():  # the next attempt would begin anew, and so for ever
        raise UserError("a requeued job finds its launch by that list; set XDG_STATE_HOME to a folder you may write")
    print(plan.folder)
    return 0


if __name__ == "__main__":
    run(main)
