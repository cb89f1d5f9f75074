"""launch/job.py, the task around a rank, and launch/attempt.py, which decides whether the job runs again."""

import json
import os
import resource
import signal
import subprocess
import sys

import pytest

from launch import affinity, attempt, job, runs, slurm
from mscgan import asked, step
from mscgan.errors import UserError
from tests.launch_checkout import ROOT
from tests.small_disk import fill, small_disk

PROGRAM = """\
import os, signal, sys, time
from pathlib import Path
told = []
for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
    if "deaf" not in sys.argv:
        signal.signal(number, lambda number, frame: told.append(number))
names = "RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT OMP_NUM_THREADS".split()
print(*(os.environ[name] for name in names), os.getcwd(), flush=True)
if "quick" in sys.argv:
    sys.exit(int(sys.argv[-1]))
Path("ready").touch()
while not told:
    time.sleep(0.01)
time.sleep(0.3)  # for a second signal, which must not come
print("told", *told, flush=True)
sys.exit(85)
"""
SLURM = {
    "SLURM_JOB_ID": "77", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NTASKS": "4", "SLURM_JOB_NUM_NODES": "2",
    "SLURM_JOB_NODELIST": "host.invalid", "SLURM_CPUS_PER_TASK": "6", "SLURM_RESTART_COUNT": "2",
}  # fmt: skip


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    folder = runs.private_folder(tmp_path / "run/launch")
    work = runs.Work(str(tmp_path / "run"), [str(tmp_path / "program.py")])
    return runs.Plan(
        "mscgan-train-abcdef", "train", str(folder), str(tmp_path), "", [work], crash_retries=2, stalled_tries=3
    )


def scontrol(folder, answers):
    """A stand-in on PATH: answers `scontrol WORDS...` from a dict by its first words, and writes each call down."""
    file = folder / "bin/scontrol"
    file.parent.mkdir(exist_ok=True)
    file.write_text(
        f"#!{sys.executable}\nimport sys\nline = ' '.join(sys.argv[1:])\n"
        f"open({str(folder / 'calls')!r}, 'a').write(line + '\\n')\n"
        f"print(next((text for start, text in {answers!r}.items() if line.startswith(start)), ''))\n"
    )
    file.chmod(0o700)
    return f"{file.parent}:{os.environ['PATH']}"


def start(plan, *arguments, **environment):
    """Starts launch/job.py as srun does."""
    plan.works[0].arguments += arguments
    runs.write_plan(plan)
    path = scontrol(runs.Path(plan.cwd), {"show node": "NodeName=host.invalid NodeAddr=10.1.2.3 Port=1"})
    return subprocess.Popen(
        [sys.executable, str(ROOT / "launch/job.py"), plan.folder],
        env=os.environ | SLURM | {"PATH": path} | environment,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def record(plan, attempt=2):
    return runs.read_ranks(runs.ranks_folder(plan, 0, attempt))[3]


def wait_for(file):
    while not file.exists():
        signal.sigtimedwait([], 0.02)


@pytest.mark.parametrize("code", [0, 1, 2, 93])
def test_a_task_tells_the_program_its_rank_and_passes_its_exit_code_on(plan, code):
    task = start(plan, "quick", str(code))
    told = task.communicate(timeout=60)[0].split()
    port = str(20_000 + 77 * 7 + 2)
    assert told == ["3", "4", "1", "2", "10.1.2.3", port, os.environ.get("OMP_NUM_THREADS", "6"), plan.cwd]
    assert (task.returncode, record(plan)["code"]) == (code, code)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM])
def test_a_signal_reaches_the_program_once_and_as_another_one_than_the_schedulers(plan, number):
    task = start(plan)
    wait_for(runs.Path(plan.cwd) / "ready")
    task.send_signal(number)
    task.send_signal(signal.SIGTERM)
    told = task.communicate(timeout=60)[0].splitlines()[-1]
    expected = signal.SIGUSR2 if number == signal.SIGUSR1 else signal.SIGUSR1
    assert told == f"told {int(expected)}"
    # 0 for srun, which would kill the ranks that end a moment later
    assert (task.returncode, record(plan)["code"]) == (0, 85)


def test_a_program_that_the_signal_meets_unprepared_runs_again(plan):
    task = start(plan, "deaf")
    wait_for(runs.Path(plan.cwd) / "ready")
    task.send_signal(signal.SIGUSR2)
    task.communicate(timeout=60)
    assert (task.returncode, record(plan)["code"]) == (0, 85)


def test_every_attempt_and_neighbour_has_a_port_of_its_own(monkeypatch):
    ports = set()
    for number in range(100, 110):
        for restart in range(6):
            monkeypatch.setenv("SLURM_JOB_ID", str(number))
            monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
            ports.add(step.master_port())
    assert len(ports) == 60 and all(20_000 <= port < 24_000 for port in ports)


@pytest.mark.parametrize(
    ("codes", "step_code", "expected"),
    [
        ([0, 0], 0, ("done", 0)),
        ([85, 85], 0, ("saved", 85)),
        ([85, 85], 138, ("saved", 85)),  # the batch shell's `wait` was interrupted; all ranks had written
        ([85, 1], 1, ("crash", 1)),
        ([137, 1], 137, ("crash", 1)),
        ([0, None], 137, ("crash", 137)),
        ([], 1, ("crash", 1)),
        ([], 140, ("saved", 85)),  # USR2 before Python was ready for it
        ([None, 85], 9, ("crash", 9)),
        ([2, 143, None], 143, ("mistake", 2)),
        ([87, 87], 87, ("bad node", 87)),
        ([88, 137], 137, ("hung", 88)),
    ],
)
def test_an_attempt_is_judged_by_the_rank_that_says_most(codes, step_code, expected):
    assert attempt.judge(dict(enumerate(codes)), step_code) == expected


def play(plan, number, code, checkpoint=None, bad=None):
    """One attempt whose only rank ends with `code`, after a new checkpoint if there is one, and finds a bad node."""
    began = attempt.begin(plan, 0, number, "77")
    if began:
        return began
    if checkpoint:
        (runs.Path(plan.works[0].run) / "checkpoints" / f"pairs-{checkpoint}").mkdir(parents=True)
    if bad:
        runs.write_bad_nodes(runs.Path(plan.works[0].run), {bad: ["no good"]})
    runs.write_rank(runs.ranks_folder(plan, 0, number), 0, code=code, world=1)
    return attempt.end(plan, 0, number, "77", code)


def test_a_job_that_saves_and_gets_further_runs_again_without_end(plan):
    for number in range(20):
        assert play(plan, number, 85, checkpoint=number + 1).again
    assert play(plan, 20, 0).outcome == "done"


@pytest.mark.parametrize("code", [1, 85])
def test_a_job_whose_checkpoint_does_not_advance_stops_with_93(plan, code):
    play(plan, 0, 85, checkpoint=500)
    verdicts = [play(plan, number, code) for number in (1, 2, 3)]
    assert [verdict.again for verdict in verdicts] == [True, True, False] and verdicts[-1].code == 93
    assert "began at pairs-500" in verdicts[-1].reason


def test_bad_nodes_are_no_lack_of_progress_and_no_crashes(plan):
    for number in range(5):
        assert play(plan, number, 87, bad=f"n{number}").again
    assert play(plan, 5, 1).again and play(plan, 6, 0).outcome == "done"


def test_a_bad_node_that_is_found_again_though_it_was_excluded_stops_the_job_in_the_end(plan):
    verdicts = [play(plan, number, 87, bad="n1") for number in range(4)]
    assert [verdict.again for verdict in verdicts] == [True, True, True, False]


def test_on_this_machine_a_stop_before_the_first_checkpoint_is_no_failure(plan):
    plan.here = True
    assert play(plan, 0, 85).code == 85
    assert not play(plan, 1, 1).again


def test_attempts_that_never_reached_their_end_count_too(plan):
    for number in range(3):  # lost nodes
        assert attempt.begin(plan, 0, number, "77") == 0
    assert attempt.begin(plan, 0, 3, "77") == 93
    assert (
        attempt.begin(runs.Plan("another", "train", plan.folder, "", "", plan.works, stalled_tries=3), 0, 0, "78") == 0
    )


def test_crashes_are_counted_since_the_last_new_checkpoint(plan):
    assert all(play(plan, number, 1, checkpoint=number + 1).again for number in range(9))
    verdicts = [play(plan, number, 1) for number in (9, 10)]
    assert [verdict.again for verdict in verdicts] == [True, False]  # crash_retries=2, and one came with pairs-9
    assert verdicts[-1].code == 1 and "after 2 such ends before since the newest checkpoint" in verdicts[-1].reason
    assert "crash_retries is 2" in verdicts[-1].reason


def test_an_interruption_that_saved_nothing_is_called_so_and_is_no_progress(plan):
    assert play(plan, 0, 85, checkpoint=1).outcome == "saved"
    verdicts = [play(plan, number, 85) for number in (1, 2, 3)]
    assert [verdict.outcome for verdict in verdicts] == ["interrupted", "interrupted", "no progress"]
    assert verdicts[0].reason == "interrupted before anything new was saved (exit code 85); goes on from pairs-1"


def test_what_was_stopped_on_request_ends_and_does_not_run_again(plan):
    verdict = play(plan, 0, 86, checkpoint=2)
    assert (verdict.outcome, verdict.code, verdict.again) == ("stopped", 86, False)


def test_a_stop_that_is_asked_for_between_two_attempts_ends_the_job(plan):
    asked.ask(plan.works[0].run, "stop", "78")  # of another job
    assert play(plan, 0, 85, checkpoint=2).again
    asked.ask(plan.works[0].run, "stop", "77")
    assert attempt.begin(plan, 0, 1, "77") == 86
    assert runs.notes(plan, 0)[-1]["outcome"] == "stopped" and not asked.is_asked(plan.works[0].run, "stop", "77")


def ended(plan, number, *records):
    """An attempt whose ranks ended in this order: (rank, node, code), code None for one that was killed itself."""
    assert attempt.begin(plan, 0, number, "77") == 0
    folder = runs.ranks_folder(plan, 0, number)
    for place, (rank, node, code) in enumerate(records):
        runs.write_rank(folder, rank, code=code, world=len(records), node=node)
        os.utime(folder / f"rank-{rank:05d}.json", ns=(place, place))
    (runs.Path(plan.works[0].run) / f"checkpoints/pairs-{number + 1}").mkdir(parents=True)
    return attempt.end(plan, 0, number, "77", 1)


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([(1, "n2", 7), (0, "n1", 7)], "rank 1 on n2 failed first, with exit code 7"),
        ([(1, "n2", 137), (0, "n1", 1)], "rank 1 on n2 failed first, with exit code 137"),  # and took rank 0 along
        ([(0, "n1", 85), (1, "n2", 85)], "saved"),
        ([(1, "n2", 137), (0, "n1", 85)], "rank 1 on n2 failed first, with exit code 137"),
        ([(0, "n1", 85), (1, "n2", None)], "rank 1 on n2 was killed"),
        ([(0, "n1", 85), (1, "n2", None), (2, "n2", None)], "rank 1 on n2 was killed"),
        ([(0, "n1", None), (1, "n2", None)], "crash (exit code 1)"),  # nobody can tell
        ([(0, "", 3), (1, "", 143)], "rank 0 failed first, with exit code 3"),  # on this machine
    ],
)
def test_the_rank_that_failed_first_and_its_node_are_named(plan, records, expected):
    assert ended(plan, 0, *records).reason.startswith(expected)


def test_a_node_that_failed_twice_is_kept_away_from(plan):
    first, second, third = (
        ended(plan, number, (0, "n1", 85), (1, node, 1)) for number, node in enumerate(["n2", "n3", "n2"])
    )
    assert (first.without, second.without, third.without) == ([], [], ["n2"])
    assert runs.notes(plan, 0, "end")[-1]["failed"] == {"rank": 1, "node": "n2", "code": 1}


def test_a_mistake_is_laid_to_no_node(plan):
    for number in range(3):
        verdict = ended(plan, number, (0, "n1", 2), (1, "n2", 143))
        assert verdict.without == [] and verdict.outcome == "mistake"


def test_half_a_line_hides_no_other_and_the_next_is_not_joined_to_it(plan, capsys):
    play(plan, 0, 85, checkpoint=1)
    file = runs.Path(plan.works[0].run) / "attempts.jsonl"
    file.write_text(file.read_text() + '{"time": "2026-01-01", "event": "en')
    play(plan, 1, 85, checkpoint=2)
    file.write_text(file.read_text() + '[1]\n{"event": "end"}\nnull\n')
    assert play(plan, 2, 0).outcome == "done"
    assert [note["event"] for note in runs.notes(plan, 0)] == ["start", "end"] * 3
    told = capsys.readouterr().err
    assert told.count("is not whole and is passed over") == 4 and f"line 3 of {file}" in told


def test_records_that_are_not_whole_are_named_and_passed_over(plan, capsys):
    attempt.begin(plan, 0, 0, "77")
    folder = runs.ranks_folder(plan, 0, 0)
    runs.write_rank(folder, 0, code=1, world=2, node="n1")
    (folder / "rank-00001.json").write_text('{"code": ')
    bad = runs.Path(plan.works[0].run) / "bad_nodes"
    bad.mkdir()
    (bad / "n1.json").write_text("")
    assert attempt.end(plan, 0, 0, "77", 1).outcome == "crash" and runs.bad_nodes(plan, 0) == []
    told = capsys.readouterr().err
    assert "rank-00001.json cannot be read" in told and "n1.json cannot be read" in told


def test_a_full_disk_ends_the_job_before_an_attempt_and_loses_no_verdict_after_one(plan, tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        plan.works[0].run = str(disk)
        assert attempt.begin(plan, 0, 0, "77") == 0
        runs.write_rank(runs.ranks_folder(plan, 0, 0), 0, code=85, world=1)
        (disk / "checkpoints/pairs-1").mkdir(parents=True)
        before = (disk / "attempts.jsonl").read_bytes()
        (disk / "attempts.jsonl").write_bytes(before + b" " * (4096 - len(before) - 1) + b"\n")  # a whole page
        filler = fill(disk)
        assert attempt.end(plan, 0, 0, "77", 0).again
        with pytest.raises(UserError, match="make room"):
            attempt.begin(plan, 0, 1, "77")
        filler.unlink()
        assert attempt.begin(plan, 0, 1, "77") == 0


@pytest.mark.parametrize("code", [85, 2])
def test_the_exit_code_of_a_rank_whose_record_cannot_be_written_counts(plan, code):
    assert attempt.judge({0: None, 1: 0}, code)[1] == code
    plan.folder = "/dev/null/nowhere"
    task = job.Task.__new__(job.Task)
    task.record, task.child, task.place = runs.Path("/dev/null/nowhere"), None, job.Place(0, 1, 0, 1, "", 0, 0, "77")
    assert not task._write(code)


def test_a_program_may_open_as_many_files_as_this_user_may(plan):
    (runs.Path(plan.cwd) / "program.py").write_text(
        "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = min(hard - 1, 256)
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        output = start(plan).communicate()[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert f"({hard}, {hard})" in output


def test_a_mistake_is_never_tried_again(plan):
    verdict = play(plan, 0, 2, checkpoint=1)
    assert (verdict.again, verdict.code) == (False, 2)


def test_a_failed_job_without_checkpoints_is_not_tried_again_but_an_interrupted_one_is(plan):
    plan.kind = "shards"
    assert [play(plan, number, 85).again for number in range(3)] == [True, True, False]
    assert not play(plan, 3, 1).again


def test_the_first_line_of_an_attempt_names_the_checkpoint_it_goes_on_from(plan):
    play(plan, 0, 85, checkpoint=9)
    play(plan, 1, 85, checkpoint=10)
    play(plan, 2, 0)
    starts = [note["checkpoint"] for note in runs.notes(plan, 0, "start")]
    assert starts == ["", "pairs-9", "pairs-10"]


def again(tmp_path, monkeypatch, state, without=()):
    show = f"JobId=77 JobState={state} Requeue=1 ExcNodeList=n9"
    monkeypatch.setenv("PATH", scontrol(tmp_path, {"--oneliner show job": show}))
    handler = signal.getsignal(signal.SIGTERM)
    result = slurm.run_again("77", list(without))
    signal.signal(signal.SIGTERM, handler)
    calls = (tmp_path / "calls").read_text().splitlines()
    return result, [call for call in calls if "show " not in call]


def test_a_requeue_comes_before_the_exclusion_of_a_bad_node_and_keeps_those_excluded_before(tmp_path, monkeypatch):
    result = again(tmp_path, monkeypatch, "RUNNING", without=["n1", "n2"])
    assert result == (True, ["requeue 77", "update JobId=77 ExcNodeList=n9,n1,n2"])


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETING"])  # the latter while its processes still end
def test_a_cancelled_job_is_not_requeued(tmp_path, monkeypatch, state):
    assert again(tmp_path, monkeypatch, state) == (False, [])


def test_a_job_that_slurm_itself_requeued_is_left_alone(tmp_path, monkeypatch):
    assert again(tmp_path, monkeypatch, "PENDING") == (True, [])


def test_only_nodes_found_bad_in_this_attempt_are_excluded(plan):
    folder = runs.Path(plan.works[0].run) / "bad_nodes"
    folder.mkdir()
    (folder / "old.json").write_text('{"node": "n1"}')
    os.utime(folder / "old.json", (1, 1))
    attempt.begin(plan, 0, 0, "77")
    (folder / "new.json").write_text(json.dumps({"node": "n2"}))
    assert runs.bad_nodes(plan, 0) == ["n2"]


def test_a_rank_is_bound_to_the_cpus_near_its_gpu(tmp_path, monkeypatch):
    device = tmp_path / "bus/pci/devices/0000:41:00.0"
    device.mkdir(parents=True)
    monkeypatch.setattr(affinity, "_bus_id", lambda local_rank: "0000:41:00.0" if local_rank == 1 else "")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 2, 3, 8, 9, 40})
    (device / "local_cpulist").write_text("0-2,8-15,32\n")
    assert affinity.near_gpu(1, tmp_path) == {1, 2, 8, 9}
    assert affinity.near_gpu(0, tmp_path) == set()  # no such GPU: not bound
    (device / "local_cpulist").write_text("100-101\n")
    assert affinity.near_gpu(1, tmp_path) == set()  # SLURM gave other CPUs: left alone


def test_the_pickled_callable_goes_through_submitit_by_reference(plan):
    from submitit.core.utils import DelayedSubmission, cloudpickle

    runs.write_plan(plan)
    data = cloudpickle.dumps(DelayedSubmission(job.Job(plan.folder)))
    assert len(data) < 1000 and b"launch.job" in data  # the snapshot's code runs, not a copy inside the pickle
    assert job.Job(plan.folder, 2).checkpoint().function.index == 2
