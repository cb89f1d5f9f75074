"""launch/guard.py: a run that somebody trains, or may train, is not launched again."""

import json
import os
import signal
import subprocess
import time

import pytest

from launch import guard, runs, slurm
from mscgan import lease, owner, process
from mscgan.errors import UserError
from tests.launch_checkout import Checkout
from tests.test_lease import written


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path / "checkout")


@pytest.fixture
def squeue(monkeypatch):
    """Lets squeue answer with these lines; with None it fails."""

    def answer(*lines):
        def command(*arguments, **_):
            failed = arguments[0] != "squeue" or None in lines
            text = "" if failed else "\n".join(lines) + "\n"
            return subprocess.CompletedProcess(arguments, int(failed), text, "timed out\n")

        monkeypatch.setattr(slurm, "command", command)

    return answer


@pytest.fixture
def launch(tmp_path):
    """Makes the N-th launch of a run (or of a sweep's runs), in its folder; the next one is asked for without `job`."""

    def make(number, *folders, job=None, kind="train", **settings):
        works = [runs.Work(str(runs.private_folder(tmp_path / folder)), []) for folder in folders or ["run"]]
        base = tmp_path / "run"
        plan = runs.Plan(
            f"mscgan-{kind}-{number}", kind, str(base / f"launch-{number}"), "", "", works,
            job_name=guard.job_name(kind, str(base)), settings=settings,
        )  # fmt: skip
        if job:
            runs.private_folder(runs.Path(plan.folder))
            runs.write_plan(plan)
            runs.write_job(plan.folder, **({"slurm": job} if isinstance(job, str) else job))
        return plan

    return make


def row(job, plan, state="RUNNING"):
    return f"{job}|{state}|{plan.job_name}|n1|None"


def ends(plan, index=0, again=False):
    runs.note(plan.works[index].run, event="end", launch=plan.name, index=index, outcome="x", code=1, again=again)


REFUSED = pytest.raises(UserError, match="is being trained by job")


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "REQUEUED"])
def test_a_job_that_may_run_on_keeps_the_run(state, launch, squeue):
    squeue(row("77", launch(1, job="77"), state))
    with pytest.raises(UserError, match="job 77; .* cancel 77`, wait for it with --dependency afterany:77, or give "):
        guard.check_free(launch(2), on_slurm=True)


@pytest.mark.parametrize("lines", [["77|COMPLETED"], ["77|FAILED"], ["77|NODE_FAIL"], []], ids=str)
def test_a_job_that_has_ended_does_not(lines, launch, squeue):
    plan = launch(1, job="77")
    squeue(*(f"{line}|{plan.job_name}|n1|None" for line in lines))
    guard.check_free(launch(2), on_slurm=True)


def test_a_link_to_the_run_is_the_same_run(tmp_path, launch, squeue):
    plan = launch(1, job="77")
    squeue(row("77", plan))
    (tmp_path / "link").symlink_to("run")
    other = runs.Plan("n", "train", "", "", "", [runs.Work(str(tmp_path / "link"), [])])
    with REFUSED:
        guard.check_free(other, on_slurm=True)
    assert guard.job_name("train", str(tmp_path / "link")) == plan.job_name
    plan.works[0].run = str(tmp_path / "link")  # and the other way round
    runs.write_plan(plan)
    with REFUSED:
        guard.check_free(launch(2), on_slurm=True)


def test_a_job_of_which_no_launch_folder_tells_is_found_by_its_name(launch, squeue):
    """The submit was killed after sbatch, or somebody removed the folder."""
    squeue(row("77", launch(1)))
    with REFUSED:
        guard.check_free(launch(2), on_slurm=True)


def test_a_run_of_a_sweep_is_kept_by_its_own_task_alone(tmp_path, launch, squeue):
    sweep = launch(1, "run/0", "run/1", job="77")
    squeue(row("77_0", sweep, "COMPLETED"), row("77_1", sweep))
    guard.check_free(launch(2, "run/0"), on_slurm=True)
    with pytest.raises(UserError, match=f"{tmp_path}/run/1 is being trained by job 77_1; .* afterany:77, "):
        guard.check_free(launch(2, "run/1"), on_slurm=True)


def test_other_kinds_of_jobs_neither_keep_a_run_nor_are_kept_from_it(launch, squeue):
    squeue(row("77", launch(1, job="77", kind="evaluate")))
    guard.check_free(launch(2), on_slurm=True)
    squeue(row("77", launch(1, job="77")))
    guard.check_free(launch(2, kind="evaluate"), on_slurm=True)


@pytest.mark.parametrize(
    "dependency",
    ["singleton", "afterok:79", "afterany:79", "afternotok:79", "afterany:77:79", "after:5,afterany:79",
     "afterany:79?singleton"],
)  # fmt: skip
def test_a_job_that_waits_for_the_newest_one_of_the_run_may_be_queued(dependency, launch, squeue):
    plans = [launch(number, job=job) for number, job in ((1, "77"), (2, "79"), (3, "78"))]
    squeue(*(row(job, plan) for job, plan in zip(("77", "79", "78"), plans, strict=True)))
    guard.check_free(launch(4, dependency=dependency), on_slurm=True)


@pytest.mark.parametrize(
    "dependency", ["afterok:77", "afterok:5", "after:79", "expand:79", "afterany:79?afterany:5", "afterany:790"]
)
def test_one_that_waits_for_something_else_may_not(dependency, launch, squeue):
    plans = [launch(number, job=job) for number, job in ((1, "77"), (2, "79"))]
    squeue(*(row(job, plan) for job, plan in zip(("77", "79"), plans, strict=True)))
    with REFUSED:
        guard.check_free(launch(3, dependency=dependency), on_slurm=True)


def test_singleton_does_not_wait_for_a_job_of_another_name(launch, squeue):
    plan = launch(1, job="77")
    plan.job_name = "mscgan-train-ab12cd"  # as a .sbatch file's is, for example
    runs.write_plan(plan)
    squeue(row("77", plan))
    with REFUSED:
        guard.check_free(launch(2, dependency="singleton"), on_slurm=True)


def test_no_answer_is_no_yes(tmp_path, launch, squeue):
    squeue(None)
    unknown = r"whether a job trains .*/run is not known: squeue gives no answer \(timed out\); try again when it does"
    with pytest.raises(UserError, match=f"{unknown}$"):
        guard.check_free(launch(1), on_slurm=True)
    guard.check_free(launch(1), on_slurm=False)  # nothing of SLURM was ever there
    plan = launch(1, job="77")
    with pytest.raises(UserError, match=f"{unknown}; if you know that job 77 has ended, remove {plan.folder}$"):
        guard.check_free(launch(2), on_slurm=False)
    ends(plan, again=True)
    with pytest.raises(UserError, match=unknown):
        guard.check_free(launch(2), on_slurm=False)
    ends(plan)
    guard.check_free(launch(2), on_slurm=False)  # it has said itself that it ended


def test_a_training_that_no_launcher_started_keeps_the_run(tmp_path, launch, squeue):
    squeue()
    plan = launch(1)
    held = lease.take(tmp_path / "run")
    with pytest.raises(UserError, match=f"belongs to process {os.getpid()} on "):
        guard.check_free(plan, on_slurm=True)
    held.release()
    guard.check_free(plan, on_slurm=True)


def test_a_run_on_another_host_is_known_by_its_lease(tmp_path, launch, squeue, monkeypatch):
    """The process of that number here is another one, and none of its business."""
    squeue()
    me = os.getpid()
    launch(1, job={"pid": me, "start": process.start(me), "machine": "another boot"})
    file = written(tmp_path / "run", job="local-42")
    monkeypatch.setattr(owner.time, "sleep", lambda _: os.utime(file))
    with pytest.raises(
        UserError, match="process 4242 on n7, job local-42, .* Stop it with `python launch/jobs.py cancel"
    ):
        guard.check_free(launch(2), on_slurm=False)


def test_a_job_may_wait_for_the_one_that_holds_the_lease(tmp_path, launch, squeue):
    squeue(row("77", launch(1, job="77")))
    written(tmp_path / "run", job="77")
    guard.check_free(launch(2, dependency="singleton"), on_slurm=True)
    squeue()
    written(tmp_path / "run", job="99")  # srun by hand
    guard.check_free(launch(2, dependency="afterany:99"), on_slurm=True)


def test_a_split_brain_is_seen_by_the_lease(tmp_path, launch, squeue, monkeypatch):
    """slurmd was killed and SLURM gave the job up, but its processes train on."""
    squeue(row("77", launch(1, job="77"), "NODE_FAIL"))
    file = written(tmp_path / "run", job="77")
    monkeypatch.setattr(owner.time, "sleep", lambda _: os.utime(file))
    with pytest.raises(UserError, match="process 4242 on n7, job 77"):
        guard.check_free(launch(2), on_slurm=True)


def test_a_job_does_not_stand_in_its_own_way(launch, squeue, monkeypatch):
    plan = launch(1)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    squeue(row("77", plan))
    guard.check_free(plan, on_slurm=True)


def test_the_scheduler_is_asked_once_for_all_runs_of_a_sweep(launch, monkeypatch):
    asked = []

    def command(*arguments, **_):
        asked.append(arguments[0])
        return subprocess.CompletedProcess(arguments, 0, "", "")

    monkeypatch.setattr(slurm, "command", command)
    folders = [f"run/{number}" for number in range(20)]
    launch(1, *folders, job="77")
    guard.check_free(launch(2, *folders), on_slurm=True)
    assert asked == ["squeue"]


def test_a_damaged_launch_keeps_nobody_from_the_run_but_its_job_does(launch, squeue):
    damaged = launch(1, job="77")
    (runs.Path(damaged.folder) / "launch.json").write_text("{")
    squeue()
    guard.check_free(launch(2), on_slurm=True)
    squeue(row("77", damaged))
    with REFUSED:
        guard.check_free(launch(2), on_slurm=True)


def test_one_submit_at_a_time(tmp_path, launch):
    with guard.only_submit(launch(1, "run/0", "run/1")):
        with pytest.raises(UserError, match="belongs to process"), guard.only_submit(launch(2, "run/1")):
            pass
        with guard.only_submit(launch(3, kind="evaluate")):
            pass
    with guard.only_submit(launch(2, "run/1")):
        pass
    assert not list(tmp_path.rglob("lease*"))


def test_of_three_submits_at_once_one_trains(checkout):
    submits = [checkout.start("submit.py", "--config", "demo", "run=runs/a", STEP="0.5") for _ in range(3)]
    while sum(submit.poll() is None for submit in submits) > 1:
        signal.sigtimedwait([], 0.05)
    checkout.wait_for("runs/a/launch-*/ranks/0-0/rank-00000.json")
    (winner,) = [submit for submit in submits if submit.poll() is None]
    os.killpg(winner.pid, signal.SIGINT)
    said = {submit.pid: submit.communicate(timeout=60)[0] for submit in submits}
    assert [submit.returncode for submit in submits if submit is not winner] == [2, 2]
    # Each is refused because of one that was before it: the winner, or the other loser, which was still asking.
    named = {
        pid: [other for other in said if other != pid and (f"process {other} " in text or f"local-{other}" in text)]
        for pid, text in said.items()
        if pid != winner.pid
    }
    assert all(named.values()) and [winner.pid] in named.values(), said
    assert len(list(checkout.root.glob("runs/a/launch-*"))) == 1


def test_a_run_that_is_being_trained_here_is_refused_under_any_name(checkout):
    first = checkout.start("submit.py", "--tasks-per-node=2", "--config", "demo", "run=runs/a", STEP="0.5")
    checkout.wait_for("runs/a/launch-*/ranks/0-0/rank-00001.json")
    (checkout.root / "link").symlink_to("runs/a")
    results = [checkout.train(run) for run in ("run=runs/a", "run=link")]
    os.killpg(first.pid, signal.SIGCONT)  # as `fg` sends; submitit's handler would warn of it
    time.sleep(0.5)
    os.killpg(first.pid, signal.SIGINT)
    first.communicate(timeout=60)
    assert "SIGCONT" not in "".join(log.read_text() for log in checkout.root.glob("runs/a/launch-*/*_log.*"))
    for code, output in results:
        assert code == 2 and f"runs/a is being trained by job local-{first.pid}; stop it with" in output
    assert json.loads(next(checkout.root.glob("runs/a/launch-*/job.json")).read_text())["machine"] == process.machine()
