"""jobs.py save and stop, through srun on two nodes."""

import json
import sys

from training import ROOT, train

JOBS = [sys.executable, str(ROOT / "launch/jobs.py")]


def test_a_training_saves_when_asked_ends_when_asked_and_goes_on(cluster, shards, tmp_path):
    longer = ["log.checkpoint=100000", "--preflight=false", "train.pairs.I=2400", "train.pairs.II=0"]
    training = train(cluster, shards, tmp_path / "run", *longer)
    training.begins()
    training.beats(0, 2)
    saved = cluster.run(*JOBS, "save", training.job)
    assert saved.startswith(f"{training.run} saved pairs-") and cluster.job(training.job)["JobState"] == "RUNNING"
    row = next(line.split() for line in cluster.run(*JOBS, "list").splitlines() if line.startswith(training.job))
    assert row[1:3] == ["RUNNING", "train"] and row[3].startswith("n") and row[5].endswith("%"), row
    assert float(row[6]) > 0 and ":" in row[7], row
    assert "will end after its next checkpoint" in cluster.run(*JOBS, "stop", training.job)
    assert f"{training.run} saved pairs-" in cluster.run(*JOBS, "save", training.job)
    assert training.ends() == "FAILED" and cluster.job(training.job)["ExitCode"] == "86:0"
    assert training.outcomes() == ["stopped"]
    assert len(list(training.run.glob("checkpoints/pairs-*"))) == 2 and not list((training.run / "asked").iterdir())
    last = json.loads((training.run / "metrics.jsonl").read_text().splitlines()[-1])["pairs"]
    assert last < 2400, "it had ended before"
    train(cluster, shards, tmp_path / "run", *longer).completes()
    pairs = [json.loads(line)["pairs"] for line in (training.run / "metrics.jsonl").read_text().splitlines()]
    assert pairs == list(range(8, 2401, 8))


def test_a_job_that_waits_is_stopped_before_it_trains_and_an_arrays_task_alone(cluster, shards, tmp_path):
    more = ["--preflight=false", "--sweep", "train.seed=0,1", "--array-parallelism=1", "log.checkpoint=100000"]
    training = train(cluster, shards, tmp_path / "run", *more, nodes=1)
    assert f"{training.job}_1" in cluster.run(*JOBS, "list")
    cluster.run(*JOBS, "stop", f"{training.job}_1")
    training.begins("*/heartbeat")
    cluster.run(*JOBS, "stop", f"{training.job}_0")
    cluster.run(*JOBS, "save", f"{training.job}_0")
    assert training.ends(count=2) == "FAILED"
    notes = [json.loads(line) for file in sorted(tmp_path.glob("run/*/attempts.jsonl")) for line in file.open()]
    assert [(note["event"], note.get("outcome")) for note in notes] == [
        ("start", None), ("end", "stopped"), ("end", "stopped")
    ]  # fmt: skip
