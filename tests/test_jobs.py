"""launch/jobs.py and states.py: a user's runs, here and on SLURM, with and without accounting."""

import errno
import json
import os
import signal
import socket
import subprocess
import time

import pytest

from launch import follow, jobs, runs, shown, slurm, states
from mscgan import asked
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
    code, _ = checkout.train("--tasks-per-node=2", "run=runs/a")
    assert code == 0
    line = checkout.run("jobs.py", "list")[1].splitlines()[1].split()
    host = socket.gethostname()
    assert line[0].startswith("local-")
    assert line[1:] == ["COMPLETED", "train", host, "8", "0%", "-", "-", "runs/a"]  # of the demo's 56,000
    shown = checkout.run("jobs.py", "show", "runs/a")[1]
    assert "end: done  pairs-8" in shown and "start on this machine  no checkpoint" in shown
    assert "rank 0 of 2 begins" in checkout.run("jobs.py", "logs", line[0].removeprefix("local-"))[1]
    assert "rank 1 of 2 begins" in checkout.run("jobs.py", "logs", "--rank=1", "runs/a")[1]
    code, output = checkout.run("jobs.py", "logs", "--rank=5", "runs/a")
    assert code == 2 and "no log of rank 5" in output


@pytest.mark.parametrize("launcher_lives", [True, False])
def test_cancelling_a_run_here_ends_its_tasks_too(checkout, launcher_lives):
    process = checkout.start("submit.py", "--tasks-per-node=2", "--config", "demo", "run=runs/a", STEP="0.3")
    checkout.wait_for("runs/a/checkpoints/pairs-2")
    folder = checkout.wait_for("runs/a/launch-*/ranks/0-0")
    if not launcher_lives:
        process.kill()
        process.wait()
    code, output = checkout.run("jobs.py", "cancel", "runs/a")
    assert code == 0 and ("has ended" in output or "does not run" in output)
    ranks = runs.read_ranks(folder)
    assert [one["code"] for one in ranks.values()] == [85, 85]
    assert not any(process_start(one["pid"]) == one["start"] for one in ranks.values())
    process.communicate()
    assert checkout.run("jobs.py", "cancel", "runs/a") == (0, f"job local-{process.pid} does not run\n")


def test_a_run_here_ends_with_its_submit_and_list_says_so(checkout):
    process = checkout.start("submit.py", "--tasks-per-node=2", "--config", "demo", "run=runs/a", STEP="1")
    checkout.wait_for("runs/a/checkpoints/pairs-2")
    folder = checkout.wait_for("runs/a/launch-*/ranks/0-0")
    process.kill()
    process.communicate()
    seen = []
    end = time.monotonic() + 60
    while not seen or seen[-1] != "STOPPED":
        assert time.monotonic() < end, seen
        seen.append(checkout.run("jobs.py", "list")[1].splitlines()[1].split()[1])
    assert set(seen) <= {"ENDING", "STOPPED"}
    assert [one["code"] for one in runs.read_ranks(folder).values()] == [85, 85]
    log = next(folder.parents[1].glob("*_0_log.out")).read_text()
    assert "launch/submit.py is gone" in log and "saved at" in log


def test_the_tasks_of_a_launcher_that_was_killed_with_its_controller_save_and_end(checkout):
    process = checkout.start("submit.py", "--tasks-per-node=2", "--config", "demo", "run=runs/a", STEP="0.3")
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
    assert states.find("77_0") == (new, 0)
    assert states.find("aaaaaa") == (old, None)
    assert states.find(old.works[0].run) == (old, None)
    runs.write_job(runs.private_folder(runs.Path(old.folder)), slurm="77")
    for text in ("9", "", "-", "None"):
        with pytest.raises(UserError, match=f"no job '{text}' of yours"):
            states.find(text)
    for text in ("77_1", "77_", "77_x", "77_²"):  # not the whole job
        with pytest.raises(UserError, match=f"no '{text}': job 77 has one run"):
            states.find(text)


def test_a_cancelled_job_on_a_full_disk_is_said_to_be_cancelled(launch, monkeypatch, capsys):
    plan = launch(count=2)
    answers(monkeypatch, squeue="77_1|RUNNING|mscgan-train-abcdef|n1|None\n", scancel="")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x")

    monkeypatch.setattr(runs, "note", full)
    assert jobs._cancel(plan, 1) == 0
    told = capsys.readouterr()
    assert told.out.startswith("job 77_1 is cancelled") and "warning: its end is not noted: x: No space" in told.err


def test_following_a_sweep_ends_with_the_highest_code_of_its_runs(launch, monkeypatch, capsys):
    plan = launch(count=2)
    answers(monkeypatch, squeue="".join(f"77_{i}|COMPLETED|mscgan-train-abcdef|n1|None\n" for i in range(2)))
    for index, code in enumerate((0, 93)):
        run = plan.works[index].run
        runs.note(run, launch=plan.name, index=index, event="end", outcome="x", code=code, again=False)
    assert jobs._logs(plan, None, 0, follow=True) == 93
    assert capsys.readouterr().out == "job 77_0: COMPLETED\njob 77_1: COMPLETED\n"


def test_following_asks_for_its_job_alone_every_15_s_and_more_seldom_later(launch, monkeypatch, capsys):
    plan, now, asked_at = launch(), [1000.0], []
    run = plan.works[0].run

    def command(*arguments, **_):
        if arguments[0] == "squeue":
            assert "--jobs=77" in arguments and not any(one.startswith("--user") for one in arguments)
            asked_at.append(now[0] - 1000)
        return subprocess.CompletedProcess(arguments, 0, "77|RUNNING|mscgan-train-abcdef|n1|None\n", "")

    def sleep(seconds):
        now[0] += seconds
        if now[0] >= 5600.5:
            runs.note(run, launch=plan.name, index=0, event="end", outcome="done", code=0, again=False)

    monkeypatch.setattr(slurm, "command", command)
    monkeypatch.setattr(follow.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(follow.time, "sleep", sleep)
    assert jobs._logs(plan, None, 0, follow=True) == 0
    pauses = [after - before for before, after in zip(asked_at, asked_at[1:], strict=False)]
    assert pauses[:10] == [15] * 10 and max(pauses) == 120 and pauses[:-1] == sorted(pauses[:-1])
    assert asked_at[-1] == 4601  # its end is in the run's own notes, so it is seen within a second
    assert len(asked_at) < 90


def test_a_job_that_the_scheduler_forgot_is_not_one_that_it_does_not_answer_for(monkeypatch):
    def command(*arguments, **_):
        error = "slurm_load_jobs error: Invalid job id specified\n" if arguments[0] == "squeue" else ""
        return subprocess.CompletedProcess(arguments, 1 if error else 0, "", error)

    monkeypatch.setattr(slurm, "command", command)
    assert slurm.states(["77"]) == {}


def harm(plan, what):
    folder = runs.Path(plan.folder)
    if what == "open to others":
        folder.chmod(0o777)
    elif what == "half written":
        (folder / "launch.json").write_text((folder / "launch.json").read_text()[:40])
    elif what == "not a plan":
        (folder / "launch.json").write_text("[1]")
    elif what == "job.json":
        (folder / "job.json").write_text('{"slurm": ')
    elif what == "a line of the list":
        with runs._index().open("a") as file:
            file.write("/nowhere/\0\n/half/a/li")


@pytest.mark.parametrize("what", ["open to others", "half written", "not a plan", "job.json", "a line of the list"])
def test_a_launch_that_cannot_be_read_is_named_and_hides_no_other(what, launch, monkeypatch, capsys):
    bad = launch("mscgan-train-aaaaaa")
    harm(bad, what)
    good = launch("mscgan-train-bbbbbb")
    answers(monkeypatch, squeue="77|RUNNING|mscgan-train-bbbbbb|n1|None\n")
    assert shown.jobs(False) == 0 and states.find("bbbbbb") == (good, None)
    told = capsys.readouterr()
    assert [line.split()[1] for line in told.out.splitlines() if "bbbbbb" in line] == ["RUNNING"]
    if what != "a line of the list":
        assert bad.folder in told.err and told.err.count("\n") == 1


def test_list_opens_no_more_launches_than_it_prints(launch, monkeypatch, capsys):
    for number in range(30):
        launch(f"mscgan-train-{number:06d}")
    opened = []
    read = runs.read_plan
    monkeypatch.setattr(runs, "read_plan", lambda folder: opened.append(folder) or read(folder))
    answers(monkeypatch, squeue="")
    assert shown.jobs(False) == 0 and len(opened) == 20
    assert capsys.readouterr().out.splitlines()[-1].endswith("mscgan-train-000029")


def test_list_tells_host_progress_rate_and_the_time_left(launch, monkeypatch, capsys):
    plan = launch()
    run = runs.Path(plan.works[0].run)
    (runs.Path(plan.folder) / "config-0.yaml").write_text(
        "family: mscgan\ntrain: {pairs: {I: 600, II: 400, joint: 0}}\n"
    )
    (run / "checkpoints/pairs-000000100").mkdir(parents=True)
    line = {"pairs": 100, "pairs_per_second": 9.0}
    answers(monkeypatch, squeue="77|RUNNING|mscgan-train-abcdef|n[1-2]|None\n")

    def listed():
        (run / "metrics.jsonl").write_text(json.dumps(line) + '\n{"pairs": 9')  # the last one is being written
        assert shown.jobs(False) == 0
        return capsys.readouterr().out.splitlines()[1].split()[3:-1]

    runs.note(run, event="start", launch=plan.name, index=0, checkpoint="pairs-000000100", attempt=1)
    assert listed() == ["n[1-2]", "100", "10%", "-", "-"]  # the rate is that of an earlier attempt
    line = {"pairs": 250, "pairs_per_second": 0.1}
    assert listed() == ["n[1-2]", "250", "25%", "0.1", "2:05:00"]


def test_show_names_the_rank_that_failed_first_with_its_code_and_the_end_of_its_log(launch, monkeypatch, capsys):
    plan = launch()
    (runs.Path(plan.folder) / "77_3_log.out").write_text("".join(f"line {number}\n" for number in range(9)))
    failed = {"rank": 3, "node": "n2", "code": 137}
    own = {"launch": plan.name, "index": 0, "attempt": 0}
    runs.note(plan.works[0].run, event="end", outcome="crash", code=137, again=True, failed=failed, **own)
    answers(monkeypatch, squeue="")
    assert shown.job(plan) == 0
    told = capsys.readouterr().out
    assert f"failed    rank 3 on n2, exit code 137; the end of {plan.folder}/77_3_log.out:\n  | line 4\n" in told


@pytest.mark.parametrize(("what", "state", "works"), [
    ("save", "RUNNING", True), ("stop", "RUNNING", True), ("save", "PENDING", False), ("stop", "PENDING", True),
    ("stop", "COMPLETED", False),
])  # fmt: skip
def test_only_what_can_be_heard_is_asked(what, state, works, launch, monkeypatch):
    plan = launch(count=2)
    monkeypatch.setattr(jobs, "SAVE_SECONDS", 0)
    answers(monkeypatch, squeue=f"77_0|FAILED|mscgan-train-abcdef||None\n77_1|{state}|mscgan-train-abcdef||None\n")
    if works and what == "stop":
        assert jobs._ask(plan, None, what) == 0
    else:
        with pytest.raises(UserError, match="has not within 0 s" if works else "does not run: it is"):
            jobs._ask(plan, None, what)
    assert not asked.is_asked(plan.works[0].run, what, "77_0")
    assert asked.is_asked(plan.works[1].run, what, "77_1") == works


@pytest.mark.parametrize("saves", [True, False])
def test_a_save_is_not_waited_for_once_the_attempt_has_ended(saves, launch, monkeypatch, capsys):
    plan = launch()
    answers(monkeypatch, squeue="77|RUNNING|mscgan-train-abcdef||None\n")

    def meanwhile(_):
        if saves:
            (runs.Path(plan.works[0].run) / "checkpoints/pairs-8").mkdir(parents=True)
        runs.note(
            plan.works[0].run, event="end", launch=plan.name, index=0, attempt=0, outcome="crash", code=1, again=True
        )

    monkeypatch.setattr(jobs.time, "sleep", meanwhile)
    if saves:
        assert jobs._ask(plan, None, "save") == 0 and "saved pairs-8" in capsys.readouterr().out
    else:
        with pytest.raises(UserError, match="ended before it could save"):
            jobs._ask(plan, None, "save")
        assert not asked.is_asked(plan.works[0].run, "save", "77")
