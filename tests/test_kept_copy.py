"""launch/kept_copy.py: a copy of the shards in a folder of the job's own goes with the job, any other stays."""

import os
import subprocess
import sys
import time

import pytest

from launch import kept_copy, stage_in
from tests.launch_checkout import ROOT
from tests.shard_factory import write_shards

KEEP = """\
import sys
from pathlib import Path
from launch import kept_copy
with kept_copy.kept(Path(sys.argv[1]), sys.argv[2]):
    print("kept", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def job(monkeypatch):
    for name in ("MSCGAN_JOB", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "4711")


def name(digit):
    return f"mscgan-{os.getuid()}-{digit * 16}"


@pytest.mark.parametrize(
    ("to", "pattern"),
    [
        ("/local/$SLURM_JOB_ID", "/local/*"),
        ("/local/job-${SLURM_JOB_ID}/data", "/local/job-*/data"),
        ("$SCRATCH", "/scratch/me.*/tmp"),
        ("/local/nvme", None),
        ("/local/$USER/4711", None),  # written out by hand: nobody says that it is the job's
        ("$OTHER", None),  # 14711 is not 4711
    ],
)
def test_a_folder_of_the_jobs_own_is_known_by_the_jobs_number_in_a_variable(to, pattern, job, monkeypatch):
    monkeypatch.setenv("SCRATCH", "/scratch/me.4711/tmp")
    monkeypatch.setenv("OTHER", "/scratch/14711")
    assert kept_copy._of_other_jobs(to) == pattern


def test_the_copy_goes_when_the_last_process_of_the_node_ends_and_no_sooner(job, tmp_path):
    shards = write_shards(tmp_path / "shards", persons=2, views=2)
    to = f"{tmp_path}/job-$SLURM_JOB_ID"
    copy = stage_in.copy_folder(stage_in.manifest_bytes(shards), to)
    with kept_copy.kept(copy, to):
        stage_in.stage(shards, to)
        with kept_copy.kept(copy, to):
            pass
        assert (copy / "train-00000.tar").exists()
    assert not copy.parent.exists()


def test_a_copy_in_a_shared_folder_stays(job, tmp_path):
    shards = write_shards(tmp_path / "shards", persons=2, views=2)
    copy = stage_in.copy_folder(stage_in.manifest_bytes(shards), tmp_path / "nvme")
    with kept_copy.kept(copy, tmp_path / "nvme"):
        stage_in.stage(shards, tmp_path / "nvme")
    assert (copy / "train-00000.tar").exists()


def test_what_a_killed_job_left_goes_and_what_another_uses_or_nobody_marked_stays(job, tmp_path):
    to = f"{tmp_path}/job-$SLURM_JOB_ID"
    left, used, unmarked, foreign = (
        tmp_path / f"job-{number}" / name(digit) for number, digit in zip("1234", "abcd", strict=True)
    )
    foreign = foreign.with_name("results")
    for folder in (left, used, unmarked, foreign):
        folder.mkdir(mode=0o700, parents=True)
    for folder in (left, foreign):
        (folder / "used").touch()
    command = [sys.executable, "-c", KEEP, str(used), to.replace("4711", "2")]
    other = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"SLURM_JOB_ID": "2"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout.readline() == b"kept\n"
        own = tmp_path / "job-4711" / name("e")
        with kept_copy.kept(own, to):
            assert not left.parent.exists()
            assert used.exists() and unmarked.exists() and foreign.exists()
        assert not own.parent.exists()
    finally:
        other.communicate()
    assert not used.exists()


def test_two_jobs_that_come_and_go_on_one_node_never_take_the_others_copy(job, tmp_path):
    """Twenty times: a process enters while others sweep and leave."""
    program = KEEP.replace("    sys.stdin.read()", "    assert Path(sys.argv[1], 'used').exists()")
    program = program.replace("with kept", "for _ in range(20):\n  with kept").replace("    print", "      print")
    program = program.replace("    assert", "      assert")
    processes = []
    for number, digit in (("1", "a"), ("2", "b"), ("1", "a")):
        folder = tmp_path / f"job-{number}" / name(digit)
        command = [sys.executable, "-c", program, str(folder), f"{tmp_path}/job-$SLURM_JOB_ID"]
        processes.append(subprocess.Popen(command, cwd=ROOT, env=os.environ | {"SLURM_JOB_ID": number},
                                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))  # fmt: skip
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    end = time.monotonic() + 5
    while list(tmp_path.glob("job-*")) and time.monotonic() < end:
        time.sleep(0.1)
    assert not list(tmp_path.glob(f"job-*/mscgan-{os.getuid()}-*"))
