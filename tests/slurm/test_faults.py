"""Whatever happens to a training on SLURM, it ends by itself, with the weights of one that nothing happened to."""

import json
import os
import signal
import subprocess
import sys

import pytest
from training import ROOT, SECONDS, SUBMIT, TINY, Training, submit, train

HANG_SECONDS = 10


def told_to_save(training):
    """What SLURM sends some time before the limit, and before a preemption."""
    training.cluster.run("scancel", "--signal=USR2", training.job)


def requeued_by_hand(training):
    """CONT and TERM at once, KILL after KillWait."""
    training.cluster.run("scontrol", "requeue", training.job)


def a_rank_is_killed(training):
    os.kill(training.pid(1), signal.SIGKILL)


def a_rank_is_stopped(training):
    """No process ends and SLURM sees nothing: only the watchdog can."""
    training.beats(1, 3)
    os.kill(training.pid(1), signal.SIGSTOP)


def assert_same_training(training, undisturbed):
    assert training.completes() == undisturbed.completes()
    pairs = [json.loads(line)["pairs"] for line in (training.run / "metrics.jsonl").read_text().splitlines()]
    assert pairs == list(range(8, 801, 8)), "a step is missing, or is there twice"


def test_a_node_that_fails_the_preflight_is_excluded(cluster, shards, tmp_path):
    (tmp_path / "n1").touch()  # a file where a folder should be: this node's disk is no good
    training = train(cluster, shards, tmp_path / "run", f"data.stage_to={tmp_path}/$SLURMD_NODENAME")
    training.runs_again(0)
    assert "n1" in cluster.job(training.job)["ExcNodeList"].split(",")
    assert "n1" not in training.nodes()
    assert training.outcomes() == ["bad node"]
    cluster.run("scancel", training.job)


def test_one_fault_after_another_and_still_the_same_weights(cluster, shards, undisturbed, tmp_path):
    # Without the preflight, which other tests run: it would cost this one some seconds an attempt.
    more = ["--preflight=false", f"--hang-seconds={HANG_SECONDS}", f"data.stage_to={tmp_path}/$SLURMD_NODENAME"]
    training = train(cluster, shards, tmp_path / "run", *more)
    for fault in (told_to_save, requeued_by_hand, a_rank_is_killed, a_rank_is_stopped):
        training.is_struck_by(fault)
    assert_same_training(training, undisturbed)
    # requeued_by_hand ends the batch script before it can note anything
    assert training.outcomes() == ["saved", "crash", "hung", "done"]
    notes = [json.loads(line) for line in (training.run / "attempts.jsonl").read_text().splitlines()]
    (hung,) = [note["hang"] for note in notes if note.get("outcome") == "hung"]
    assert hung.startswith("rank 1") and "was stopped" in hung
    for rank in (0, 1):  # each says where it hung
        assert "most recent call first" in training.log(rank)
    assert list(tmp_path.glob("n?/mscgan-*/manifest.json"))


@pytest.mark.slow
def test_a_node_that_is_set_down(cluster, shards, undisturbed, tmp_path):
    training = train(cluster, shards, tmp_path / "run")
    node = ""

    def strike(training):
        nonlocal node
        node = training.nodes()[-1]
        cluster.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")

    training.is_struck_by(strike)
    assert node not in training.nodes()
    cluster.run("scontrol", "update", f"NodeName={node}", "State=RESUME")
    assert_same_training(training, undisturbed)


@pytest.mark.slow
def test_a_node_that_loses_its_power(cluster, shards, undisturbed, tmp_path):
    training = train(cluster, shards, tmp_path / "run")
    node = ""

    def strike(training):
        nonlocal node
        node = training.nodes()[-1]
        cluster.crash_node(node)

    training.is_struck_by(strike)
    cluster.start_node(node)
    assert_same_training(training, undisturbed)


@pytest.mark.slow
def test_preemption_by_a_higher_partition(cluster, shards, undisturbed, tmp_path):
    training = train(cluster, shards, tmp_path / "run")
    urgent = ["sbatch", "--parsable", "--partition=urgent", "--nodes=4", "--exclusive", "--output=/dev/null"]

    def strike(training):
        cluster.run(*urgent, "--wrap=sleep 3")

    training.is_struck_by(strike)
    assert_same_training(training, undisturbed)


@pytest.mark.slow
def test_preemption_without_grace_is_said_at_submit_and_the_next_job_of_the_chain_goes_on(
    cluster, shards, undisturbed, tmp_path
):
    run = tmp_path / "run"
    what = [*"--nodes=2 --gpus-per-node=0 --tasks-per-node=1 --cpus-per-task=1 --partition=fragile".split(), *TINY]
    what += [f"data.root={shards}", f"run={run}"]
    done = subprocess.run([*SUBMIT, *what], env=cluster.env, capture_output=True, text=True)
    assert "partition fragile preempts by CANCEL without grace" in done.stderr
    first = Training(cluster, run, done.stdout.split()[1].rstrip(":"))
    second = Training(cluster, run, submit(cluster, *what, "--dependency=singleton"))
    first.until(lambda: list(run.glob("checkpoints/pairs-*")), "made no checkpoint")
    urgent = ["sbatch", "--parsable", "--partition=urgent", "--nodes=4", "--exclusive", "--output=/dev/null"]
    cluster.run(*urgent, "--wrap=sleep 3")
    assert first.ends() == "PREEMPTED"
    assert_same_training(second, undisturbed)


@pytest.mark.slow
def test_a_node_on_which_a_rank_failed_twice_is_named_and_kept_away_from(cluster, shards, undisturbed, tmp_path):
    training = train(cluster, shards, tmp_path / "run", "--preflight=false")
    struck = []

    def strike(training):
        struck.append(training.nodes()[1])
        a_rank_is_killed(training)

    while len(struck) < 2 or struck[-1] not in struck[:-1]:
        training.is_struck_by(strike)
    assert struck[-1] in cluster.job(training.job)["ExcNodeList"].split(",") and struck[-1] not in training.nodes()
    shown = cluster.run(sys.executable, str(ROOT / "launch/jobs.py"), "show", training.job)
    assert f"failed    rank 1 on {struck[-1]}, exit code 137; the end of {training.run}" in shown
    assert f"rank 1 on {struck[-1]} failed first, with exit code 137; crash" in training.log(0)
    assert_same_training(training, undisturbed)


def test_so_many_nodes_are_never_excluded_that_the_job_cannot_run(cluster, tmp_path):
    job = cluster.run("sbatch", "--parsable", "--nodes=3", "--hold", f"--output={tmp_path}/log", "--wrap=true")
    code = "import sys; from launch import slurm; slurm._exclude(sys.argv[1], sys.argv[2].split())"
    cluster.run("scontrol", "release", job)
    cluster.run("scontrol", "hold", job)
    program = [sys.executable, "-c", code, job]
    assert "keeps away from n1 from now on" in cluster.run(*program, "n1", cwd=ROOT)
    assert "keeps away from n1 alone" in cluster.run(*program, "n2 n3", cwd=ROOT)
    assert cluster.job(job)["ExcNodeList"] == "n1"
    cluster.run("scancel", job)


@pytest.mark.slow
def test_a_time_limit(cluster, shards, tmp_path):
    """Two minutes with the signal at one: a training of more than two minutes takes several turns."""
    longer = ["train.pairs.I=16000", "log.checkpoint=400", "log.every=400"]
    undisturbed = train(cluster, shards, tmp_path / "undisturbed", *longer)
    training = train(cluster, shards, tmp_path / "run", "--time=2", "--signal-seconds=60", "--stalled-tries=9", *longer)
    weights = training.completes(seconds=10 * SECONDS)
    assert training.outcomes().count("saved") >= 1
    assert weights == undisturbed.completes(seconds=10 * SECONDS)
