"""`launch/submit.py --job table2`: starts the parts of launch/table2.py, as jobs of SLURM or here one after another."""

import argparse
from dataclasses import replace
from pathlib import Path

from launch import guard, runs, start, table2
from mscgan.errors import AGAIN


def submit(given: argparse.Namespace, settings: dict) -> int:
    """Starts what is missing of table 2, a launch a part; where nothing is, writes the table here."""
    table, on_slurm = table2.ask(given.config, given.overrides, given.seeds or 1), start.on_slurm(settings)
    parts = table2.parts(table)
    works = [_targets(part) or [start.Target(None, table.folder)] for part in parts]
    plans = [start.plan_of(part.kind, [], settings, work, on_slurm) for part, work in zip(parts, works, strict=True)]
    if given.dry_run:
        for place, (part, plan, targets) in enumerate(zip(parts, plans, works, strict=True), 1):
            print(f"# part {place} of {len(parts)}, {part.kind}: {part.title}"
                  + "".join(f"; after part {before + 1}" for before in part.after))  # fmt: skip
            start.dry_run(plan, targets, on_slurm, _waits(part))
        table2.check_free(table)
        return 0
    for part, plan, targets in zip(parts, plans, works, strict=True):
        start.checked(plan, targets, on_slurm, _waits(part))
        guard.check_free(plan, on_slurm)
    table2.check_free(table)
    runs.private_folder(Path(table.folder))
    table2.write_asked(table)
    if len(parts) == 1:
        from launch import table2_result

        return table2_result.write(table.folder)
    return _queue(parts, plans, works, given.follow) if on_slurm else _one_by_one(table, parts, settings)


def _waits(part: table2.Part) -> bool:
    return part.kind != "train" or bool(part.after)


def _targets(part: table2.Part) -> list[start.Target]:
    return [start.Target(config if part.kind == "train" else None, config.run) for config in part.runs]


def _queue(parts: list[table2.Part], plans: list[runs.Plan], works: list[list[start.Target]], follow: bool) -> int:
    """Queues the parts, each to begin when those before it have ended, however they did."""
    jobs: list[str] = []
    for part, plan, targets in zip(parts, plans, works, strict=True):
        if part.after:
            plan.settings["dependency"] = "afterany:" + ":".join(jobs[before] for before in part.after)
        jobs.append(start.start(plan, targets, on_slurm=True))
        waits = f", after job {', '.join(jobs[before] for before in part.after)}" if part.after else ""
        print(f"job {jobs[-1]}: {part.kind}, {part.title}: {len(targets)} run{'s' * (len(targets) > 1)}{waits}")
    return start.queued(plans[-1], jobs[-1], follow)


def _one_by_one(table: table2.Table, parts: list[table2.Part], settings: dict) -> int:
    """Runs the parts on this machine. A run that fails stops none of the others."""
    from launch import local, table2_result

    with local.Stop() as stop:
        for place, part in enumerate(parts[:-1], 1):
            begin, left_out = table2.ready(table, part)
            count = f"{len(begin)} run{'s' * (len(begin) != 1)}"
            print(f"table 2, part {place} of {len(parts)}, {part.kind}: {part.title}: {count}", flush=True)
            print("".join(f"{line}\n" for line in left_out), end="", flush=True)
            if begin and not stop.asked:
                targets = _targets(replace(part, runs=begin))
                plan = start.plan_of(part.kind, [], settings, targets, False)
                ranks = start.checked(plan, targets, False, waits=False)
                start.start(plan, targets, on_slurm=False)
                start.here(plan, ranks, stop)
            if stop.asked:
                print(f"stopped; the same command goes on with what is missing in {table.folder}", flush=True)
                return AGAIN
    return table2_result.write(table.folder)
