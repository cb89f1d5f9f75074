"""One owner a run, asked before a launch: is another submit at work there, does an earlier job wait or run, does any
process train there? What gets no answer is refused: a silent scheduler does not make a folder free.

Jobs of one run may be queued if each waits for the one before (`--dependency singleton`, `afterok:123`). Who slips
through, as between clusters that do not see each other's jobs, training itself refuses (mscgan/lease.py).
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from launch import runs, slurm, states
from mscgan import lease, owner, process
from mscgan.errors import UserError

ENDS = ("afterok", "afterany", "afternotok", "aftercorr")  # the dependencies that wait for a job's end


def job_name(kind: str, folder: str) -> str:
    """What the scheduler calls a run's jobs (or a sweep's): always the same, so that `singleton` keeps them apart."""
    return f"mscgan-{kind}-{hashlib.sha256(os.path.realpath(folder).encode()).hexdigest()[:8]}"


@contextmanager
def only_submit(plan: runs.Plan) -> Iterator[None]:
    """Makes the folders of a training's runs and, inside the block, keeps other submits out of them.

    Raises:
        UserError: another one is at work there, or a folder cannot be made.
    """
    with ExitStack() as held:
        for folder in _folders(plan):
            held.callback(lease.take(runs.private_folder(Path(folder)), "lease-submit").release)
        yield


def check_free(plan: runs.Plan, on_slurm: bool) -> None:
    """Returns if nobody trains the runs of a training, or all who do will have ended before it starts.

    Raises:
        UserError: somebody does, or it cannot be known.
    """
    folders = _folders(plan)
    launches = {folder: _launches(folder) for folder in folders}
    queue = _queue(launches, on_slurm)
    for folder in folders:
        jobs = _jobs(folder, launches[folder], queue)
        if jobs and not _waits(plan, jobs):
            job = _newest(jobs)
            wait = "" if job.startswith("local-") else f"wait for it with --dependency afterany:{job.split('_')[0]}, "
            raise UserError(
                f"{folder} is being trained by job {job}; stop it with `python launch/jobs.py cancel {job}`, {wait}or "
                "give another run=FOLDER"
            )
        try:
            here = owner.of(Path(folder))
            if not (here and (here.job in jobs or _waits(plan, {here.job: ""}))):
                owner.check_free(Path(folder))
        except OSError as error:
            raise UserError(
                f"{folder}/lease cannot be read ({error.strerror}), so who trains there is not known; mend that, or "
                "give another run=FOLDER"
            ) from error


def _folders(plan: runs.Plan) -> list[str]:
    """The real paths: one folder may have several names."""
    return sorted({os.path.realpath(work.run) for work in plan.works}) if plan.kind == "train" else []


def _launches(folder: str) -> list[runs.Plan]:
    """The launches of the run in the folder, and of the sweep that it may be one run of."""
    places = (Path(folder), Path(folder).parent)
    return list(runs.readable([file.parent for place in places for file in sorted(place.glob("launch-*/launch.json"))]))


def _trains(plans: list[runs.Plan], folder: str) -> list[tuple[runs.Plan, int]]:
    return [
        (plan, index)
        for plan in plans
        for index, work in enumerate(plan.works)
        if plan.kind == "train" and os.path.realpath(work.run) == folder
    ]


def _jobs(folder: str, plans: list[runs.Plan], queue: dict[str, slurm.State]) -> dict[str, str]:
    """The jobs that train in the folder, or will: what the scheduler calls each."""
    found = {}
    for plan, index in _trains(plans, folder):
        state = states.task_states(plan, queue)[index]
        if state not in {*slurm.ENDED, "STOPPED", "UNKNOWN"} or states.orphans(plan):
            found[states.task_id(plan, index)] = plan.job_name
    # By its name also a job of which no launch folder tells: the submit was killed, or the folder was removed.
    told = {states.job_id(plan) for plan in plans}
    names = {job_name("train", str(place)) for place in (Path(folder), Path(folder).parent)}
    for job, known in queue.items():
        if known.name in names and known.state not in slurm.ENDED and job.split("_")[0] not in told:
            found[job] = known.name
    found.pop(process.job(), None)  # a .sbatch file asks from inside its own job
    return found


def _queue(launches: dict[str, list[runs.Plan]], on_slurm: bool) -> dict[str, slurm.State]:
    """What the scheduler knows, asked once for all folders.

    Raises:
        UserError: it gives no answer, and a run of a folder may be being trained.
    """
    of_slurm = {
        folder: [(plan, index) for plan, index in _trains(plans, folder) if "slurm" in runs.read_job(plan.folder)]
        for folder, plans in launches.items()
    }
    if not launches or not (on_slurm or any(of_slurm.values())):
        return {}
    try:
        return slurm.queue()
    except slurm.NoAnswer as error:
        for folder, those in of_slurm.items():
            ended = [notes[-1].get("again") is False for notes in (runs.notes(*launch) for launch in those) if notes]
            if not on_slurm and len(ended) == len(those) and all(ended):
                continue  # each has noted its end
            known = "".join(f"; if you know that job {states.job_id(plan)} has ended, remove {plan.folder}"
                            for plan, _ in those[-1:])  # fmt: skip
            raise UserError(f"whether a job trains {folder} is not known: {error}{known}") from error
        return {}


def _newest(jobs: dict[str, str]) -> str:
    return max(jobs, key=lambda job: int(job.split("_")[0]) if job[:1].isdigit() else 0)


def _waits(plan: runs.Plan, jobs: dict[str, str]) -> bool:
    """Whether the launch is to wait until all of these have ended: for all by their name, or for the newest, which
    waits for the others in its turn."""
    dependency, newest = plan.settings.get("dependency", ""), _newest(jobs)
    if not all(job[:1].isdigit() for job in jobs):
        return False  # SLURM waits for its own jobs only

    def waits(part: str) -> bool:
        kind, *ids = part.split(":")
        if kind == "singleton":
            return set(jobs.values()) == {plan.job_name}
        return kind in ENDS and bool({newest, newest.split("_")[0]} & set(ids))

    parts = [waits(part) for part in re.split("[,?]", dependency)]
    return all(parts) if "?" in dependency else any(parts)
