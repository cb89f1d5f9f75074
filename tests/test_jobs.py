"""launch/jobs.py and states.py: a user's runs, here and on SLURM, with and without accounting."""

import os
import signal
import subprocess

import pytest

from launch import jobs, runs, slurm, states
from mscgan.errors import UserError
from mscgan.process import start as process_start
from tests.launch_checkout import Checkout


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path / "checkout")


@pytest.fixture
def launch(tmp_path, monkeypatch):
    """Makes a launch that was queued as SLURM job 77."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def make(name="mscgan-train-abcdef", count=1):
        run = tmp_path / name
        works = [runs.Work(str(run) if count == 1 else str(run / str(index)), []) for index in range(count)]
        for work in works:
            runs.private_folder(runs.Path(work.run))
        plan = runs.Plan(name, "train", str(runs.private_folder(run / "launch")), "", "", works, job_name=name)
        runs.write_plan(plan)
        runs.write_job(plan.folder, slurm="77")
        runs.register(plan.folder)
        return plan

    return make


def answers(monkeypatch, **texts):
    """Lets SLURM's commands answer with these texts; the others fail."""

    def command(*arguments, **_):
        text = texts.get(arguments[0])
        return subprocess.CompletedProcess(arguments, 1 if text is None else 0, text or "", "not here")

    monkeypatch.setattr(slurm, "command", command)


def test_a_finished_run_here_is_listed_shown_and_logged(checkout):
    code, _ = checkout.train("run=runs/a")
    assert code == 0
    line = checkout.run("jobs.py", "list")[1].splitlines()[1].split()
    assert line[0].startswith("local-") and line[1:] == ["COMPLETED", "train", "8", "runs/a"]
    shown = checkout.run("jobs.py", "show", "runs/a")[1]
    assert "end: done  pairs-8" in shown and "start on this machine  no checkpoint" in shown
    assert "rank 0 of 2 begins" in checkout.run("jobs.py", "logs", line[0].removeprefix("local-"))[1]
    assert "rank 1 of 2 begins" in checkout.run("jobs.py", "logs", "--rank=1", "runs/a")[1]
    code, output = checkout.run("jobs.py", "logs", "--rank=5", "runs/a")
    assert code == 2 and "no log of rank 5" in output


@pytest.mark.parametrize("launcher_lives", [True, False])
def test_cancelling_a_run_here_ends_its_tasks_too(checkout, launcher_lives):
    process = checkout.start("submit.py", "--config", "demo", "run=runs/a", STEP="0.3")
    checkout.wait_for("runs/a/checkpoints/pairs-2")
    folder = checkout.wait_for("runs/a/launch-*/ranks/0-0")
    if not launcher_lives:
        process.kill()
        process.wait()
        assert "is being trained by job local-" in checkout.train("run=runs/a")[1]
    code, output = checkout.run("jobs.py", "cancel", "runs/a")
    assert code == 0 and "has ended" in output
    ranks = runs.read_ranks(folder)
    assert [one["code"] for one in ranks.values()] == [85, 85]
    assert not any(process_start(one["pid"]) == one["start"] for one in ranks.values())
    process.communicate()
    assert checkout.run("jobs.py", "cancel", "runs/a") == (0, f"job local-{process.pid} does not run\n")


def test_the_tasks_of_a_launcher_that_was_killed_with_its_controller_save_and_end(checkout):
    process = checkout.start("submit.py", "--config", "demo", "run=runs/a", STEP="0.3")
    checkout.wait_for("runs/a/checkpoints/pairs-2")
    folder = checkout.wait_for("runs/a/launch-*/ranks/0-0")
    os.killpg(process.pid, signal.SIGKILL)  # launcher, controller and tasks; the programs have groups of their own
    process.communicate()
    for one in runs.read_ranks(folder).values():
        while process_start(one["child"]) == one["child_start"]:
            signal.sigtimedwait([], 0.02)
    assert "saved at" in next(folder.parents[1].glob("*_0_log.out")).read_text()


def test_squeue_is_enough_and_sacct_fills_in_what_it_forgot(launch, monkeypatch):
    plan = launch(count=2)
    answers(
        monkeypatch, squeue="77_0|RUNNING|mscgan-train-abcdef|n1|None\n77_1|PENDING|mscgan-train-abcdef||Resources\n"
    )
    assert states.task_states(plan, slurm.states(["77"])) == ["RUNNING", "PENDING"]
    assert states.alive(plan) == "77"
    answers(
        monkeypatch,
        squeue="",
        sacct="77_0|CANCELLED by 0|mscgan-train-abcdef|n1|None\n77_1|COMPLETED|mscgan-train-abcdef|n1|None\n",
    )
    assert states.task_states(plan, slurm.states(["77"])) == ["CANCELLED", "COMPLETED"]


def test_without_accounting_a_forgotten_job_is_known_by_its_own_notes(launch, monkeypatch):
    plan = launch()
    answers(monkeypatch, squeue="")
    assert states.task_states(plan, slurm.states(["77"])) == ["UNKNOWN"]
    for code, state in ((0, "COMPLETED"), (93, "FAILED")):
        runs.note(plan.works[0].run, launch=plan.name, index=0, event="end", outcome="x", code=code, again=False)
        assert states.task_states(plan, slurm.states(["77"])) == [state]
    answers(monkeypatch, squeue="77|RUNNING|mscgan-train-abcdef|n1|None\n", scancel="")
    assert jobs._cancel(plan, None) == 0
    answers(monkeypatch, squeue="")
    assert states.task_states(plan, slurm.states(["77"])) == ["CANCELLED"]


@pytest.mark.parametrize("state", ["SUSPENDED", "CONFIGURING", "PREEMPTED"])
def test_a_job_that_may_yet_run_is_alive(launch, monkeypatch, state):
    answers(monkeypatch, squeue=f"77|{state}|mscgan-train-abcdef|n1|None\n")
    assert states.alive(launch()) == ("" if state == "PREEMPTED" else "77")


def test_another_job_with_the_same_id_is_not_taken_for_ours(launch, monkeypatch):
    plan = launch()
    answers(monkeypatch, squeue="77|RUNNING|somebody-elses|n1|None\n")
    assert states.alive(plan) == ""


def test_the_newest_launch_that_the_text_names_is_found(launch):
    old, new = launch("mscgan-train-aaaaaa"), launch("mscgan-train-bbbbbb")
    assert states.find("77") == (new, None)
    assert states.find("77_3") == (new, 3)
    assert states.find("aaaaaa") == (old, None)
    assert states.find(old.works[0].run) == (old, None)
    with pytest.raises(UserError, match="no job '9' of yours"):
        states.find("9")


def test_following_a_sweep_ends_with_the_highest_code_of_its_runs(launch, monkeypatch, capsys):
    plan = launch(count=2)
    answers(monkeypatch, squeue="".join(f"77_{i}|COMPLETED|mscgan-train-abcdef|n1|None\n" for i in range(2)))
    for index, code in enumerate((0, 93)):
        run = plan.works[index].run
        runs.note(run, launch=plan.name, index=index, event="end", outcome="x", code=code, again=False)
    assert jobs._logs(plan, None, 0, follow=True) == 93
    assert capsys.readouterr().out == "job 77_0: COMPLETED\njob 77_1: COMPLETED\n"
