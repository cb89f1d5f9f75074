"""One owner a run, on a real scheduler."""

import re
import subprocess
import sys

from test_launch import ended
from training import ROOT, SUBMIT, TINY, submit

PLACE = "--nodes=1 --gpus-per-node=0 --tasks-per-node=1 --cpus-per-task=1 --preflight=false".split()
SHORT = ["train.pairs.I=16", "train.pairs.II=16"]


def test_srun_of_several_tasks_is_one_training(cluster, shards, tmp_path):
    run = tmp_path / "run"
    program = [sys.executable, "-m", "mscgan.train", *TINY, *SHORT, f"data.root={shards}", f"run={run}"]
    step = ["srun", "--nodes=2", "--ntasks=3", "--cpus-per-task=1", "--label", "--kill-on-bad-exit", *program]
    done = subprocess.run(step, env=cluster.env, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode != 0  # 3 ranks do not share a batch of 8
    said = [line for line in done.stderr.splitlines() if "error: [rank" in line]
    assert said and all(re.search(r"rank 0\] batch 8 is not a multiple of 3 ranks", line) for line in said), done.stderr
    step[2] = "--ntasks=2"
    done = subprocess.run(step, env=cluster.env, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert [line.partition(": ")[0] for line in done.stderr.splitlines() if "done: 32 pairs, 4 steps" in line] == ["0"]
    assert not (run / "lease").exists()


def test_of_three_submits_at_once_one_is_queued(cluster, shards, tmp_path):
    command = [*SUBMIT, *PLACE, *TINY, f"data.root={shards}", f"run={tmp_path}/run"]
    at_once = [
        subprocess.Popen(command, env=cluster.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [one.communicate(timeout=200) for one in at_once]
    assert sorted(one.returncode for one in at_once) == [0, 2, 2], said
    queued = cluster.run("squeue", "-h", "--states=all", "--format=%i %j").splitlines()
    (job,) = [out.split()[1].rstrip(":") for out, _ in said if out]
    name = cluster.job(job)["JobName"]
    assert len(list(tmp_path.glob("run/launch-*"))) == 1 and len([row for row in queued if row.endswith(name)]) == 1
    assert all("belongs to process" in error or f"job {job}" in error for out, error in said if not out)
    cluster.run("scancel", job)


def test_jobs_of_one_run_wait_for_each_other_or_are_refused(cluster, shards, tmp_path):
    # Long enough that the first still trains when the last is submitted, on a busy machine too.
    what = [*PLACE, *TINY, f"data.root={shards}", f"run={tmp_path}/run"]
    first = submit(cluster, *what)
    (tmp_path / "link").symlink_to("run")
    refused = subprocess.run(
        [*SUBMIT, *what[:-1], f"run={tmp_path}/link"], env=cluster.env, capture_output=True, text=True
    )
    assert refused.returncode == 2 and f"is being trained by job {first}" in refused.stderr
    refused = subprocess.run([*SUBMIT, *what, "--dependency=after:1"], env=cluster.env, capture_output=True, text=True)
    assert refused.returncode == 2 and f"is being trained by job {first}" in refused.stderr
    second = submit(cluster, *what, "--dependency=singleton")
    third = submit(cluster, *what, f"--dependency=afterok:{second}")
    names = {cluster.job(job)["JobName"] for job in (first, second, third)}
    assert len(names) == 1 and cluster.job(second)["Dependency"] == "singleton(unfulfilled)"
    assert [ended(cluster, job) for job in (first, second, third)] == ["COMPLETED"] * 3
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 100
