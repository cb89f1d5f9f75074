"""launch/job.py, the task around a rank, and launch/attempt.py, which decides whether the job runs again."""

import json
import os
import signal
import subprocess
import sys

import pytest

from launch import affinity, attempt, job, runs, slurm
from mscgan import step
from tests.launch_checkout import ROOT

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
    assert len(ports) == 60 and all(20_000 <= port < 26_000 for port in ports)


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


def play(plan, number, code, checkpoint=None):
    """One attempt whose only rank ends with `code`, after a new checkpoint if there is one."""
    began = attempt.begin(plan, 0, number, "77")
    if began:
        return began
    if checkpoint:
        (runs.Path(plan.works[0].run) / "checkpoints" / f"pairs-{checkpoint}").mkdir(parents=True)
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


def test_bad_nodes_are_no_lack_of_progress(plan):
    plan.crash_retries = 9
    assert all(play(plan, number, 87).again for number in range(5))
    assert play(plan, 5, 0).outcome == "done"


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


def test_crashes_are_counted_even_when_each_got_further(plan):
    verdicts = [play(plan, number, 1, checkpoint=number + 1) for number in range(3)]
    assert [verdict.again for verdict in verdicts] == [True, True, False]  # crash_retries=2
    assert verdicts[-1].code == 1 and "crash_retries is 2" in verdicts[-1].reason


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
    return result, [call for call in calls if "show job" not in call]


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
