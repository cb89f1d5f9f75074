"""Stage-in on several nodes: all wait for the slowest, none for one that stands still, and a job's own copy goes."""

import fcntl
import os
import time
from contextlib import contextmanager

from training import train

from launch import stage_in

SHORT = ["train.pairs.I=40", "train.pairs.II=40", "--preflight=false"]


@contextmanager
def held_up(shards, to):
    """Another process has the lock of the copy in the folder, and copies nothing."""
    copy = stage_in.copy_folder(stage_in.manifest_bytes(shards), to)
    copy.mkdir(mode=0o700, parents=True)
    with (copy / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield copy


def test_all_nodes_wait_for_one_that_stages_longer(cluster, shards, tmp_path):
    with held_up(shards, tmp_path / "n2"):
        training = train(cluster, shards, tmp_path / "run", *SHORT, f"data.stage_to={tmp_path}/$SLURMD_NODENAME")
        training.until(lambda: list(tmp_path.glob("n1/mscgan-*/manifest.json")), "n1 has not staged")
        time.sleep(15)
        assert not (training.run / "config.yaml").exists(), "training began on n1 alone"
    training.completes()
    assert training.outcomes() == ["done"] and sorted(training.nodes()) == ["n1", "n2"]


def test_a_node_whose_stage_in_stands_still_is_bad_and_the_job_goes_on_without_it(cluster, shards, tmp_path):
    with held_up(shards, tmp_path / "n2"):
        more = [f"data.stage_to={tmp_path}/$SLURMD_NODENAME", "--hang-seconds=8"]
        training = train(cluster, shards, tmp_path / "run", *SHORT, *more)
        training.runs_again(0)
        assert "n2" in cluster.job(training.job)["ExcNodeList"].split(",")
        training.completes()
    assert training.outcomes() == ["bad node", "done"]
    assert "stood still for 8 s" in (training.run / "bad_nodes/n2.json").read_text()


def test_the_copy_of_a_job_in_a_folder_of_its_own_is_gone_when_it_has_ended(cluster, shards, tmp_path):
    left = tmp_path / f"n1-job-1/mscgan-{os.getuid()}-0123456789abcdef"  # of a job that was killed
    left.mkdir(mode=0o700, parents=True)
    (left / "used").touch()
    more = [f"data.stage_to={tmp_path}/$SLURMD_NODENAME-job-$SLURM_JOB_ID"]
    training = train(cluster, shards, tmp_path / "run", *SHORT, *more, ranks=2)
    training.until(lambda: list(tmp_path.glob(f"n1-job-{training.job}/mscgan-*/manifest.json")), "no copy")
    training.completes()
    assert not list(tmp_path.glob("n?-job-*"))
