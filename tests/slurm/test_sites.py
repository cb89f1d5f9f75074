"""What sites need, on a real SLURM: sbatch's options, the user's shell, setup lines, plain sbatch over a requeue."""

import json
import os
import shutil
import subprocess
import time

import pytest
from test_launch import ONE, ended, hostile
from training import ROOT, SECONDS, SUBMIT, TINY, Training, submit

from launch import options

SHORT = ["train.pairs.I=16", "train.pairs.II=16"]
# A job that ends at once: it prints the help of shards/build.py.
QUICK = [*ONE, "--job=shards"]
HELP = ["--", "--help"]


def asked(cluster, *arguments, cwd=None, **environment):
    """Exit code and both outputs of launch/submit.py."""
    done = subprocess.run(
        [*SUBMIT, *arguments], env=cluster.env | environment, cwd=cwd, capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


def queued(cluster, *arguments, cwd, **environment):
    """A job that is held, and what scontrol shows of it."""
    code, out, error = asked(cluster, *QUICK, "--hold", *arguments, *HELP, cwd=cwd, **environment)
    assert code == 0, error
    job = out.split()[1].rstrip(":")
    shown = cluster.run("scontrol", "-o", "show", "job", job)
    cluster.run("scancel", job)
    return shown


def test_slurm_gets_every_option_as_it_was_typed(cluster, tmp_path):
    comment = 'it\'s $5, "new" #2 `x` \\ $(y) c:\\'
    typed = ["--comment", comment, "-J", "my job|a", "-t", "UNLIMITED", "-p", "urgent", "-x", "n3,n4", "--exclusive"]
    typed += ["--begin", "now+1hour", "--mem", "1.5G", "--nice", "--sbatch", "contiguous", "--sbatch", "wckey=a b"]
    typed += ["--mail-type", "FAIL", "--mail-user", "a@example.org", "-o", f"{tmp_path}/batch.log"]
    shown = queued(cluster, *typed, cwd=tmp_path)
    for text in (f"Comment={comment}", "JobName=my job|a ", "TimeLimit=UNLIMITED", "Partition=urgent",
                 "MinMemoryNode=1.50G", "ExcNodeList=n[3-4]", "Nice=100", "Contiguous=1", "OverSubscribe=NO",
                 f"StdOut={tmp_path}/batch.log", "MailType=FAIL", "MailUser=a@example.org", "Requeue=1"):  # fmt: skip
        assert text in shown, shown


def test_a_range_of_nodes_and_a_time_of_0(cluster, shards, tmp_path):
    what = [*TINY, *SHORT, f"data.root={shards}", f"run={tmp_path}/run", "--gpus-per-node=0", "--cpus-per-task=1"]
    code, out, error = asked(cluster, *what, "--nodes=2-4", "--dry-run")
    assert code == 2 and error.endswith("batch 8 is not a multiple of 3 ranks x 1; set train.batch to 6 or 9\n"), error
    what += ["train.batch=12", "train.pairs.I=24", "train.pairs.II=24"]
    job = submit(cluster, *what, "--nodes=2-4", "--time=0", "--preflight=false")
    assert cluster.job(job)["TimeLimit"] == "UNLIMITED"
    assert ended(cluster, job) == "COMPLETED"
    assert 2 <= int(cluster.job(job)["NumNodes"]) <= 4


def test_gpus_as_generic_resources_make_a_process_each(cluster, tmp_path):
    arguments = ["--job=throughput", "--gres=gpu:3", "--cpus-per-task=1", "--hold", *HELP]
    code, out, error = asked(cluster, *arguments, cwd=tmp_path)
    assert code == 0, error
    shown = cluster.job(out.split()[1].rstrip(":"))
    cluster.run("scancel", shown["JobId"])
    assert (shown["TresPerNode"], shown["NtasksPerN:B:S:C"]) == ("gres:gpu:3", "3:0:*:*")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sbatch", "colour=red"], "unrecognized option '--colour=red'"),
        (["--begin", "tomorow"], "Invalid time specification (pos=0): tomorow; Invalid --begin specification"),
        (["--gpus-per-node", "h100:2"], "not available"),
        (["--gres", "gpu:h100:2"], "not available"),
        (["--partition", "gone"], "invalid partition"),
        (["--srun", "mpi=gone"], "Invalid MPI type 'gone'"),
        (["--srun", "--colour"], "unrecognized option '--colour'"),
        (["--container", "an/image"], "unrecognized option '--container-image=an/image'"),  # no pyxis
    ],
)
def test_slurm_itself_judges_its_options_before_anything_is_queued(arguments, said, cluster, tmp_path):
    small = [] if "gpu" in " ".join(arguments) else ["--gpus-per-node=0", "--cpus-per-task=1"]
    for dry in ([], ["--dry-run"]):
        code, out, error = asked(cluster, "--job=throughput", *small, *arguments, *dry, *HELP, cwd=tmp_path)
        (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
        assert code == 2 and line.startswith("error: SLURM refuses this job: ") and said in line
    assert list(tmp_path.iterdir()) == []


def test_what_goes_to_sbatch_as_it_is_is_run_by_nobody(cluster, tmp_path):
    for value in hostile(tmp_path / "mark")[:5]:
        for name in ("comment", "job_name"):
            assert f"{value}" in queued(cluster, f"--{name.replace('_', '-')}={value}", cwd=tmp_path)
    shown = queued(cluster, "--sbatch", f"mcs-label={hostile(tmp_path / 'mark')[0]}", cwd=tmp_path)
    assert "JobState=PENDING" in shown
    job = submit(cluster, *QUICK, f"--comment={hostile(tmp_path / 'mark')[2]}", *HELP, cwd=tmp_path)
    assert ended(cluster, job) == "COMPLETED"
    assert not (tmp_path / "mark").exists()


def test_the_users_shell_holds_outside_a_job_and_the_command_line_wins_over_it(cluster, tmp_path):
    shell = {"SBATCH_PARTITION": "urgent", "SBATCH_TIMELIMIT": "7", "SBATCH_NO_REQUEUE": "1", "SBATCH_WAIT": "1"}
    shown = queued(cluster, cwd=tmp_path, **shell)
    assert "Partition=urgent" in shown and "TimeLimit=00:07:00" in shown and "Requeue=1" in shown
    assert "Partition=main" in queued(cluster, "-p", "main", cwd=tmp_path, **shell)
    inside = shell | {"SLURM_JOB_ID": "1", "SLURM_JOB_NUM_NODES": "4", "SLURM_NNODES": "4", "SLURM_TIMELIMIT": "3"}
    shown = queued(cluster, cwd=tmp_path, **inside)
    assert "Partition=main" in shown and "NumNodes=1" in shown and "TimeLimit=1-00:00:00" in shown


def test_what_srun_reads_of_the_users_shell_reaches_the_ranks(cluster, tmp_path):
    (tmp_path / "setup.sh").write_text("env > batch.txt\n")
    what = ["--setup", f"source {tmp_path}/setup.sh", *HELP]
    code, out, error = asked(cluster, *QUICK, *what, cwd=tmp_path, SLURM_MPI_TYPE="none", SLURM_CPU_BIND="none")
    assert code == 0, error
    assert ended(cluster, out.split()[1].rstrip(":")) == "COMPLETED"
    assert {"SLURM_MPI_TYPE=none", "SLURM_CPU_BIND=none"} <= set((tmp_path / "batch.txt").read_text().splitlines())


def test_ranks_get_what_setup_exports_even_without_the_users_environment(cluster, tmp_path):
    what = ["--setup=export MSCGAN_JOB=from-setup", "--sbatch=export=NONE", *HELP]
    job = submit(cluster, *QUICK, *what, cwd=tmp_path)
    assert ended(cluster, job) == "COMPLETED"  # the snapshot was found


def test_a_failing_setup_line_ends_the_job_with_its_text_and_is_not_tried_again(cluster, tmp_path):
    job = submit(cluster, *QUICK, "--setup=module-gone load cuda", "--setup=touch mark", *HELP, cwd=tmp_path)
    assert ended(cluster, job) == "FAILED"
    shown = cluster.job(job)
    assert (shown["ExitCode"], shown["Restarts"]) == ("2:0", "0") and not (tmp_path / "mark").exists()
    (log,) = tmp_path.glob(f"runs/*/launch-*/{job}_0_log.out")
    assert "error: a setup line failed with exit code 127: module-gone load cuda\n" in log.read_text()
    (notes,) = tmp_path.glob("runs/*/attempts.jsonl")
    assert json.loads(notes.read_text())["why"] == "a setup line failed with exit code 127: module-gone load cuda"


def test_of_a_silent_controller_nothing_is_started_here(cluster, tmp_path):
    gone = (cluster.root / "slurm.conf").read_text().replace("SlurmctldPort=", "SlurmctldPort=1#")
    conf = tmp_path / "gone.conf"
    conf.write_text(gone.replace("SlurmctldTimeout", "#"))
    for asked_for in ((), ("--on=slurm",), ("--nodes=128",)):
        code, _, error = asked(cluster, *asked_for, "--config=demo", f"run={tmp_path}/run", SLURM_CONF=str(conf))
        assert code == 2 and "its controller does not answer (" in error and error.count("\n") == 1, error
    assert not (tmp_path / "run").exists()


def test_a_value_more_of_a_sweep_starts_that_value_alone(cluster, shards, tmp_path):
    what = [*ONE, "--preflight=false", *TINY, *SHORT, f"data.root={shards}", f"run={tmp_path}/sweep"]
    first = submit(cluster, *what, "--sweep=train.seed=0,1")
    training = Training(cluster, tmp_path / "sweep", first)
    training.array_completes(2)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("sweep/*/generator.safetensors")}
    code, out, error = asked(cluster, *what, "--sweep=train.seed=2,1,0")
    assert code == 0 and out.count("already complete: 32 pairs in") == 2, error
    (second,) = [line.split()[1].rstrip(":") for line in out.splitlines() if line.startswith("job ")]
    assert ended(cluster, second) == "COMPLETED"
    assert {path.name for path in (tmp_path / "sweep").glob("train*")} == {f"train.seed={seed}" for seed in (0, 1, 2)}
    assert all(file.stat().st_mtime_ns == changed for file, changed in before.items())
    assert (tmp_path / "sweep/train.seed=2/generator.safetensors").exists()


def plain_sbatch(cluster, checkout, tmp_path, *arguments, limit=()):
    """A job of launch/train.sbatch in a checkout of its own."""
    for name in ("mscgan", "launch"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    batch = ["sbatch", "--parsable", "--gpus-per-node=0", "--cpus-per-task=1", f"--output={tmp_path}/log"]
    return cluster.run(*batch, *limit, "launch/train.sbatch", *arguments, cwd=checkout)


def until(true, what=lambda: "", seconds=SECONDS):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what()
        time.sleep(0.2)


def test_a_plain_sbatch_goes_on_with_its_first_code_when_the_checkout_is_edited(cluster, shards, tmp_path):
    checkout = tmp_path / "checkout"
    arguments = [*TINY, f"data.root={shards}", f"run={tmp_path}/run", "--preflight=false"]
    job = plain_sbatch(cluster, checkout, tmp_path, *arguments)
    log = tmp_path / "log"
    until(lambda: list(tmp_path.glob("run/checkpoints/pairs-*")), lambda: log.read_text() + str(cluster.job(job)))
    for file in ("launch/chain.sh", "launch/submit.py", "launch/job.py", "mscgan/train.py"):
        (checkout / file).write_text("exit 7\n")
    cluster.run("scontrol", "requeue", job)
    until(lambda: cluster.job(job)["Restarts"] == "1")
    assert ended(cluster, job) == "COMPLETED", log.read_text()
    assert len(list(tmp_path.glob("run/launch-*"))) == 1 and (tmp_path / "run/generator.safetensors").exists()


def test_a_plain_sbatch_that_is_told_to_save_does_and_goes_on(cluster, shards, tmp_path):
    arguments = [*TINY, f"data.root={shards}", f"run={tmp_path}/run", "--preflight=false"]
    job = plain_sbatch(cluster, tmp_path / "checkout", tmp_path, *arguments)
    until(lambda: list(tmp_path.glob("run/checkpoints/pairs-*")), lambda: (tmp_path / "log").read_text())
    cluster.run("scancel", "--signal=USR2", job)  # what --signal=USR2@120 sends
    until(lambda: cluster.job(job)["Restarts"] == "1", lambda: (tmp_path / "log").read_text())
    assert ended(cluster, job) == "COMPLETED"
    notes = [json.loads(line) for line in (tmp_path / "run/attempts.jsonl").read_text().splitlines()]
    assert [note["outcome"] for note in notes if note["event"] == "end"] == ["saved", "done"]


def test_a_plain_sbatch_takes_the_sites_setup_and_refuses_late_options(cluster, shards, tmp_path):
    site = options.user_file().relative_to(options.user_file().parents[1])
    file = cluster.root / "home" / site
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("setup: [module-gone load cuda]\n")
    try:
        arguments = [*TINY, *SHORT, f"data.root={shards}", "--preflight=false"]
        jobs = [
            plain_sbatch(cluster, tmp_path / "a", tmp_path, *arguments, f"run={tmp_path}/one"),
            plain_sbatch(cluster, tmp_path / "a", tmp_path, *arguments, f"run={tmp_path}/two", "--nodes=4"),
        ]
        assert [ended(cluster, job) for job in jobs] == ["FAILED", "FAILED"]
    finally:
        file.unlink()
    said = (tmp_path / "log").read_text()
    assert "error: a setup line failed with exit code 127: module-gone load cuda\n" in said
    assert "error: --nodes after the .sbatch file's name does nothing; give sbatch --nodes itself" in said
    assert not (tmp_path / "two").exists()


def test_a_plain_sbatch_without_time_to_save_in_ends_at_once(cluster, shards, tmp_path):
    arguments = [*TINY, f"data.root={shards}", f"run={tmp_path}/run"]
    job = plain_sbatch(cluster, tmp_path / "checkout", tmp_path, *arguments, limit=["--time=3"])
    assert ended(cluster, job) == "FAILED" and cluster.job(job)["ExitCode"] == "2:0"
    said = (tmp_path / "log").read_text()
    assert said.startswith("error: --time 00:03:00 is 180 s") and "2 x 120 = 240 s at least" in said
    assert said.count("\n") == 1 and not (tmp_path / "run").exists()


def test_shards_that_a_job_builds_are_readable_as_the_users_umask_says(cluster, tmp_path):
    before = os.umask(0o022)
    try:
        build = [
            "synthetic",
            "--out",
            f"{tmp_path}/shards",
            "--people",
            "2",
            "--views",
            "2",
            "--height",
            "32",
            "--width",
            "32",
        ]
        job = submit(cluster, *QUICK, "--", *build, cwd=tmp_path)
    finally:
        os.umask(before)
    assert ended(cluster, job) == "COMPLETED"
    found = [tmp_path / "shards", *(tmp_path / "shards").iterdir()]
    assert {path.stat().st_mode & 0o777 for path in found} == {0o755, 0o644}
    (launch,) = tmp_path.glob("runs/*/launch-*")
    assert all(path.stat().st_mode & 0o077 == 0 for path in [launch, *launch.rglob("*")] if not path.is_symlink())
