"""launch/submit.py and what it stands on: options, snapshot, sbatch script, and the way on a machine without SLURM."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from launch import endings, local, runs, slurm, snapshot, start
from mscgan import config, schedule
from mscgan.errors import UserError
from tests.launch_checkout import ROOT, Checkout
from tests.shard_factory import write_shards
from tests.small_disk import remount, small_disk

SLURM = shutil.which("sbatch")


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path / "checkout")


def test_the_dry_run_prints_a_script_and_leaves_nothing(checkout):
    code, script = checkout.train(
        "--dry-run", "--nodes=2", "--gpus-per-node=4", "--cpus-per-task=6", "--time=1-0", "--reservation=r",
        "--setup=module load a", "--sweep=train.lr=1e-4,2e-4", "--sweep=train.betas=[0.5,0.9]", "--array-parallelism=1",
        "--comment=it's a\\b",
    )  # fmt: skip
    assert code == 0
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    for line in ("nodes=2", "ntasks-per-node=4", "gpus-per-node=4", "cpus-per-task=6", "time=1-0", "reservation=r",
                 "requeue", "signal=USR2@120", "array=0-1%1", "comment='it'\"'\"'s a\\\\b'"):  # fmt: skip
        assert f"#SBATCH --{line}\n" in script
    assert "gpus-per-task" not in script
    srun = next(line for line in script.splitlines() if line.startswith("srun "))
    assert {"--kill-on-bad-exit=1", "--cpus-per-task=6", "--open-mode=append"} <= set(srun.split())
    assert (
        script.index("umask 077")
        < script.index("module load a")
        < script.index("attempt.py begin")
        < script.index("srun ")
    )
    assert "#   lr: 0.0002" in script.splitlines()
    assert [folder.name for folder in (checkout.root / "runs").iterdir()] == ["demo"]


def test_a_job_of_one_process_has_one_task_however_many_gpus_a_node_has(checkout):
    arguments = ("--job=generate", "--config=demo", "run=runs/a", "--gpus-per-node=8", "--nodes=2", "--dry-run")
    code, script = checkout.run("submit.py", *arguments)
    assert code == 0
    for line in ("nodes=1", "ntasks-per-node=1", "gpus-per-node=1"):
        assert f"#SBATCH --{line}\n" in script


def test_an_evaluation_is_shared_by_all_gpus_of_its_nodes(checkout):
    arguments = ("--job=evaluate", "--config=demo", "run=runs/a", "--gpus-per-node=8", "--nodes=2", "--dry-run")
    code, script = checkout.run("submit.py", *arguments)
    assert code == 0
    for line in ("nodes=2", "ntasks-per-node=8", "gpus-per-node=8"):
        assert f"#SBATCH --{line}\n" in script


def test_what_the_dry_run_prints_of_the_configuration_is_one_that_loads(checkout, tmp_path):
    code, printed = checkout.train("--dry-run", "family=pg2", "run=runs/a", "train.lr=3e-4")
    assert "without --dry-run and --nodes the command runs on this machine" in printed
    assert code == 0
    lines = printed.partition("# the configuration of runs/a\n")[2].splitlines()
    (tmp_path / "mine.yaml").write_text("\n".join(line.removeprefix("# ") for line in lines))
    assert config.load(str(tmp_path / "mine.yaml")) == config.load(
        "demo", ["family=pg2", "run=runs/a", "train.lr=3e-4"]
    )


def test_the_folder_one_submits_from_is_checked_too(checkout, tmp_path):
    (tmp_path / "a\ntouch mark\n").mkdir()
    command = [sys.executable, checkout.root / "launch/submit.py", "--config=demo", f"run={tmp_path}/run"]
    done = subprocess.run(command, cwd=tmp_path / "a\ntouch mark\n", env=checkout.env, capture_output=True, text=True)
    assert done.returncode == 2 and "may hold letters" in done.stderr and not (tmp_path / "run").exists()


JOB = {"SLURM_JOB_ID": "5", "SLURM_JOB_NAME": "x", "SLURM_NTASKS_PER_NODE": "1", "SLURM_CLUSTER_NAME": "here"}


def prepared(checkout, *arguments):
    """The launch folder that a .sbatch file's first attempt makes."""
    code, output = checkout.train("--prepare", *arguments, **JOB, PATH=checkout.squeue())
    assert code == 0, output
    said, folder = output.splitlines()
    assert re.search(rf"^job 5 runs the code of {checkout.root} as it is now, 2.*, commit no git: {folder}/sn", said)
    return checkout.root / folder


def test_a_later_attempt_of_a_sbatch_file_runs_the_first_ones_copy_of_the_code(checkout):
    launch = prepared(checkout)
    batch = (launch / "batch.sh").read_text()
    assert subprocess.run(["bash", "-n"], input=batch, text=True).returncode == 0 and "#SBATCH" not in batch
    assert f"{launch}/snapshot/launch/job.py {launch}\n" in batch
    assert f"{checkout.root}/launch" not in batch.replace(str(launch), "")

    (launch / "batch.sh").write_text("echo in $PWD: $0")
    (checkout.root / "launch/chain.sh").write_text("exit 7")

    def attempt(**more):
        environment = checkout.env | JOB | {"SLURM_SUBMIT_DIR": str(checkout.root)} | more
        script = ["bash", checkout.root / "launch/train.sbatch"]
        done = subprocess.run(script, env=environment, cwd="/", capture_output=True, text=True)
        return done.returncode, done.stdout

    assert attempt(SLURM_RESTART_COUNT="1") == (0, f"in {checkout.root}: {launch}/batch.sh\n")
    assert attempt()[0] == attempt(SLURM_RESTART_COUNT="0")[0] == 7  # the first attempt makes its own
    assert attempt(SLURM_RESTART_COUNT="1", SLURM_JOB_ID="55")[0] == 7  # nor is it another job's
    assert attempt(SLURM_RESTART_COUNT="1", SLURM_CLUSTER_NAME="there")[0] == 7  # or another cluster's


def test_the_sbatch_files_refuse_what_comes_too_late_or_would_idle(checkout):
    job = JOB | {"SLURM_GPUS_ON_NODE": "2", "PATH": checkout.squeue()}
    code, output = checkout.train("--prepare", **job)
    assert code == 2 and "--ntasks-per-node=2" in output  # the second GPU would idle
    job["SLURM_NTASKS_PER_NODE"] = "2"
    for late, said in (
        ("--nodes=4", "give sbatch --nodes itself"), ("--sbatch=wckey=a", "give sbatch"), ("--on=here", "has chosen"),
        ("--signal-seconds=9", "--signal=USR2@SECONDS"), ("--follow", "take no --follow"), ("--dry-run", "take no"),
        ("--sweep=train.seed=1,2", "take no --sweep"),
    ):  # fmt: skip
        code, output = checkout.train("--prepare", late, **job)
        assert code == 2 and said in output and output.count("\n") == 1, output
    code, output = checkout.train("--prepare", "run=runs/b", **job, XDG_STATE_HOME="/dev/null")
    assert code == 2 and "set XDG_STATE_HOME" in output


@pytest.mark.parametrize(
    ("limit", "told", "shell", "said"),
    [
        ("00:03:00", "", "", "is 180 s, and training is told to save 120 s before its end: that takes 2 x 120 = 240 s "
                             "at least; give --time 4 (minutes) or more, or SBATCH_SIGNAL=USR2@90 in the shell"),
        ("00:04:00", "", "", ""),
        ("UNLIMITED", "", "", ""),
        ("", "", "", ""),  # no answer
        ("00:03:00", "", "USR2@60", ""),
        ("00:03:00", " SubmitLine=sbatch --signal=USR2@60 launch/train.sbatch", "", ""),  # newer versions say it
        ("00:03:00", " SubmitLine=sbatch --signal=USR2@100 a", "USR2@60", "training is told to save 100 s"),
    ],
)  # fmt: skip
def test_a_plain_sbatch_without_time_to_save_in_is_refused_with_the_sum(limit, told, shell, said, monkeypatch):
    answers = {"show": f"JobId=5 TimeLimit={limit} Requeue=1{told}" if limit else "",
               "write": (ROOT / "launch/train.sbatch").read_text()}  # fmt: skip

    def command(*arguments, **_):
        word = next(word for word in answers if word in arguments)
        return subprocess.CompletedProcess(arguments, 0, answers[word], "")

    monkeypatch.setattr(slurm, "command", command)
    monkeypatch.setenv("SBATCH_SIGNAL", shell)
    if said:
        with pytest.raises(UserError, match=re.escape(said)):
            endings.check_job("5")
    else:
        endings.check_job("5")


def test_the_sbatch_files_refuse_at_once_what_submit_refuses(checkout):
    path = commands(checkout, squeue="exit 0", scontrol="echo JobId=5 TimeLimit=00:03:00; "
                    "echo '#SBATCH --signal=USR2@120'")  # fmt: skip
    for more, said in (
        ({}, "that takes 2 x 120 = 240 s"),
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_JOB_ID": "4"}, "take no --array; use launch/submit.py --sweep"),
    ):
        code, output = checkout.train("--prepare", "run=runs/a", **JOB, **more, PATH=path)
        assert code == 2 and said in output and output.count("\n") == 1, output
    commands(checkout, scontrol="exit 1")
    write_checkpoint(checkout.root / "runs/b", facts(config.load("demo"), 21_500))
    code, output = checkout.train("--prepare", "run=runs/b", "train.seed=7", **JOB, PATH=path)
    assert code == 2 and "was made with train.seed 0" in output
    environment = checkout.env | JOB | {"SLURM_SUBMIT_DIR": str(checkout.root), "MSCGAN_PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", checkout.root / "launch/train.sbatch", "--config=demo", "run=runs/b"],
        env=environment | {"PATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "") and done.stderr.startswith("already complete: 21500 pairs")
    assert not (checkout.root / "runs/a").exists() and not list(checkout.root.glob("runs/b/launch-*"))


def test_setup_and_container_hold_for_the_sbatch_files_too(checkout):
    options = "on: here\nsetup: [module load a]\nsrun: [mpi=pmix]\ncontainer: /images/a.sif\n"
    (checkout.root / "config/mscgan/cluster.yaml").write_text(options)
    batch = (prepared(checkout, "--mount=/more") / "batch.sh").read_text()
    assert batch.index("module load a ||") < batch.index("attempt.py begin") < batch.index(" --mpi=pmix apptainer exec")
    assert "/more:/more" in batch


def test_a_sbatch_file_without_an_environment_says_so_in_a_line(checkout):
    environment = checkout.env | JOB | {"SLURM_SUBMIT_DIR": str(checkout.root)}
    bare = checkout.root / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    for more in ({"MSCGAN_PYTHON": f"{bare}/bin/python"}, {"PATH": f"{bare}/bin:/usr/bin:/bin"}):
        done = subprocess.run(
            ["bash", checkout.root / "launch/train.sbatch"], env=environment | more, capture_output=True, text=True
        )
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and "MSCGAN_PYTHON" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ls /no/such", "failed with exit code 2: ls /no/such"),
        ("source mine.sh", "ended the script with exit code 0: source mine.sh"),
    ],
)
def test_a_setup_line_that_fails_ends_the_job_with_its_text_and_show_says_it(line, said, checkout):
    (checkout.root / "mine.sh").write_text("exit 0\n")
    launch = prepared(checkout, "run=runs/a", "--setup=true", f"--setup={line}", "--setup=touch mark")
    done = subprocess.run(["bash", launch / "batch.sh"], cwd=checkout.root, env=checkout.env | JOB,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 2 and not (checkout.root / "mark").exists()
    assert done.stderr.splitlines()[-1] == f"error: a setup line {said}"
    (note,) = checkout.notes("runs/a")
    assert (note["outcome"], note["code"], note["again"]) == ("setup failed", 2, False)
    shown = checkout.run("jobs.py", "show", "runs/a", PATH=checkout.squeue())[1]
    assert "attempt 0  end: setup failed  no checkpoint" in shown and f"failed    a setup line {said}\n" in shown


def test_what_a_setup_file_switches_on_hides_no_failure_of_the_ranks(checkout):
    (checkout.root / "mine.sh").write_text("set -eu\ntrap 'echo cleaned up' EXIT\n")
    batch = (prepared(checkout, "run=runs/a", "--setup=source mine.sh") / "batch.sh").read_text()
    before, srun, after = batch.partition("\nsrun ")
    script = f"{before}\n(exit 1)\n{after.partition(chr(10))[2]}"
    done = subprocess.run(["bash"], input=script, cwd=checkout.root, env=checkout.env | JOB, capture_output=True,
                          text=True)  # fmt: skip
    assert srun and [note["event"] for note in checkout.notes("runs/a")] == ["start", "end"], done.stderr
    assert done.stdout.endswith("cleaned up\n")


def test_containers_get_the_folders_that_the_job_uses(checkout, tmp_path):
    arguments = ("--dry-run", "run=runs/a", "data.root=/data/market", "data.stage_to=/local/nvme")
    _, pyxis = checkout.train(*arguments, "--container=nvcr.io#nvidia/pytorch:25.10-py3", "--mount=/a b:/c")
    assert "--container-image=nvcr.io#nvidia/pytorch:25.10-py3" in pyxis and ",/a b:/c," in f",{pyxis}".replace(
        "=", ","
    )
    _, apptainer = checkout.train(*arguments, "--container=/images/mscgan.sif")
    assert "apptainer exec --nv --bind" in apptainer and "/images/mscgan.sif python3 -P -u -m submitit" in apptainer
    for script in (pyxis, apptainer):
        for folder in ("/data/market", "/local/nvme", f"{checkout.root}/runs/a"):
            assert f"{folder}:{folder}" in script


def test_containers_get_the_folders_that_a_jobs_own_arguments_name(checkout, tmp_path):
    for name in ("images", "lists", "real", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "lists/keypoints.csv").touch()
    (tmp_path / "link").symlink_to("real")
    what = ["market1501", "--images", f"{tmp_path}/images", f"--annotations={tmp_path}/lists/keypoints.csv"]
    what += ["--pairs", f"{tmp_path}/link", "--out", f"{tmp_path}/out/new", "--size", "1000", "x" * 300]
    code, script = checkout.run("submit.py", "--job=shards", "--dry-run", "--container=/a.sif", "--", *what)
    assert code == 0, script
    for name in ("images", "lists", "link", "real", "out"):
        assert f"{tmp_path}/{name}:{tmp_path}/{name}" in script
    assert "1000:" not in script and "xxx:" not in script


def test_a_container_sees_the_data_of_the_run_that_is_evaluated(checkout, tmp_path):
    (checkout.root / "runs/a").mkdir()
    (checkout.root / "runs/a/config.yaml").write_text("data: {root: /data/market}")
    _, script = checkout.run("submit.py", "--job=evaluate", "run=runs/a", "--dry-run", "--container=/a.sif")
    assert "/data/market:/data/market" in script


def test_a_container_refuses_what_its_list_of_mounts_would_be_cut_at(checkout):
    for name in ("a,b", "a:b"):
        code, output = checkout.train("--dry-run", f"run=runs/{name}", "--container=/a.sif")
        assert code == 2 and f"cannot see {checkout.root}/runs/{name}" in output
        assert checkout.train("--dry-run", f"run=runs/{name}")[0] == 0


def test_a_container_sees_a_folder_that_only_the_node_can_name(checkout):
    _, script = checkout.train("--dry-run", "run=runs/a", "data.stage_to=$NODES/own", "--container=/a.sif")
    (line,) = [line for line in script.splitlines() if line.startswith("srun ")]
    words = line.replace("srun ", "printf '%s\\n' ", 1)
    done = subprocess.run(["bash"], input=words, env={"NODES": "/nvme $x"}, capture_output=True, text=True)
    assert "/nvme $x/own:/nvme $x/own" in done.stdout, done.stderr
    done = subprocess.run(["bash"], input=words, env={}, capture_output=True, text=True)
    assert done.returncode != 0 and "NODES: is not set on this node" in done.stderr


def commands(checkout, **lines):
    """A PATH with these commands in front, each a line of bash."""
    for name, line in lines.items():
        file = checkout.root / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/bash\n{line}\n")
        file.chmod(0o700)
    return f"{checkout.root}/bin:{checkout.env['PATH']}"


def test_where_slurm_is_installed_and_silent_nothing_starts_here_unasked(checkout):
    (checkout.root / "config/mscgan/cluster.yaml").unlink()
    down = "echo 'Slurmctld(primary) at head is DOWN'; echo 'scontrol: error: no answer' >&2; exit 1"
    path = commands(checkout, sbatch="exit 1", srun="exit 1", scontrol=down)
    for asked in ((), ("--on=auto",), ("--on=slurm",), ("--dry-run",), ("--nodes=128",)):
        code, output = checkout.train("run=runs/a", *asked, PATH=path)
        assert code == 2 and "its controller does not answer (no answer)" in output and output.count("\n") == 1
    assert not (checkout.root / "runs/a").exists()
    code, output = checkout.train("run=runs/a", "--on=here", PATH=path)
    assert code == 0 and "this runs on this machine" in output


def test_where_slurm_is_a_package_that_nobody_set_up_it_runs_here(checkout):
    (checkout.root / "config/mscgan/cluster.yaml").unlink()
    unset = "echo 'scontrol: fatal: Could not establish a configuration source' >&2; exit 1"
    path = commands(checkout, sbatch="exit 1", srun="exit 1", scontrol=unset)
    code, output = checkout.train("run=runs/a", PATH=path)
    assert code == 0 and "no SLURM is set up here, so this runs on this machine" in output
    code, output = checkout.train("run=runs/b", "--on=slurm", PATH=path)
    assert code == 2 and "--on slurm: no SLURM is set up on this machine" in output


def test_sbatch_sees_the_users_shell_but_not_what_the_script_says(checkout):
    """Outside a job all of it; inside one nothing of that job. A stand-in for sbatch writes down what it sees."""
    path = commands(
        checkout, srun="exit 0", scontrol="echo Slurmctld is UP", squeue="exit 0", sinfo="exit 0",
        sbatch=f"env > {checkout.root}/seen.txt",
    )  # fmt: skip
    shell = {
        "SBATCH_NETWORK": "a", "SBATCH_QOS": "b", "SBATCH_SIGNAL": "9@9", "SLURM_MPI_TYPE": "pmix",
        "SLURM_CPU_BIND": "cores",
    }  # fmt: skip

    def seen(**more):
        code, output = checkout.train("run=runs/a", "--on=slurm", "--dry-run", **shell, **more, PATH=path)
        assert code == 0, output
        lines = (checkout.root / "seen.txt").read_text().splitlines()
        return {line.partition("=")[0] for line in lines} & {*shell, *more}, output

    found, output = seen()
    assert found == {"SBATCH_NETWORK", "SLURM_MPI_TYPE", "SLURM_CPU_BIND"}
    assert "#SBATCH --qos=b\n" in output and "note: SBATCH_SIGNAL of your shell is not used" in output
    found, output = seen(SLURM_JOB_ID="3")
    assert found == set() and "--qos" not in output


QUEUED = "$(echo $PWD/runs/a/launch-*)"


@pytest.mark.parametrize(
    ("squeue", "scancel", "said"),
    [
        (f'echo "77|{QUEUED}/x.sh"; echo "8|$PWD/y"', "echo $@ > cancelled",
         "error: job 77, which sbatch had queued, is cancelled: "),
        (f'echo "77|{QUEUED}/x.sh"', "echo 'scancel: error: no' >&2; exit 1",
         "error: job 77 is queued (no): end it with `scancel 77`: "),
        ("exit 1", "exit 0", "error: whether the job is queued is not known (squeue gives no answer ()): look with "),
        ("exit 0", "exit 0", "error: nothing was queued: "),
    ],
)  # fmt: skip
def test_a_job_that_cannot_be_written_down_does_not_stay_in_the_queue(squeue, scancel, said, checkout):
    """The disk is full, or read-only, once sbatch has taken the job: job.json cannot be made."""
    taken = f"[ $1 = --test-only ] || {{ mkdir {QUEUED}/job.json; echo 'Submitted batch job 77'; }}"
    path = commands(checkout, srun="exit 0", scontrol="echo Slurmctld is UP", sinfo="exit 0", sbatch=taken,
                    squeue=f"[[ $* == *%F* ]] || exit 0; {squeue}", scancel=scancel)  # fmt: skip
    sweep = ["--sweep=train.seed=1,2"] if "cancelled" in said else []
    code, output = checkout.train("run=runs/a", "--on=slurm", *sweep, PATH=path)
    assert code == 2 and output.startswith(said) and "job.json" in output and output.count("\n") == 1, output
    if "cancelled" in said:
        assert (checkout.root / "cancelled").read_text() == "77\n"


@pytest.mark.parametrize(
    ("sbatch", "said"),
    [
        ("echo 'sbatch: error: QOSMaxSubmit' >&2; exit 1", "refused this job: QOSMaxSubmit; job 77, which sbatch had "),
        ("echo sent", "job 77, which sbatch had queued, is cancelled: no job's number in Could not make sense of "
                      'sbatch output "sent"'),
    ],
)  # fmt: skip
def test_an_answer_of_sbatch_that_names_no_job_leaves_none_in_the_queue(sbatch, said, checkout):
    path = commands(checkout, srun="exit 0", scontrol="echo Slurmctld is UP", sinfo="exit 0", scancel="exit 0",
                    squeue=f"[[ $* == *%F* ]] && echo '77|'{QUEUED}/x.sh; printf '5|RUNNING|\\xff|n|None\\n'",
                    sbatch=f"[ $1 = --test-only ] || {{ {sbatch}; }}")  # fmt: skip
    code, output = checkout.train("run=runs/a", "--on=slurm", PATH=path)
    assert code == 2 and said in output.splitlines()[-1], output


def test_a_dry_run_says_all_that_a_start_would_refuse(checkout):
    """On SLURM; where there is none, what can be known without it."""
    refuses = "echo 'sbatch: error: Invalid qos' >&2; exit 1"
    path = commands(checkout, srun="exit 0", scontrol="echo Slurmctld is UP", squeue="exit 0", sinfo="exit 0",
                    sbatch=refuses)  # fmt: skip
    code, output = checkout.train("run=runs/a", "--dry-run", "--on=slurm", PATH=path)
    assert code == 2 and output.endswith("error: SLURM refuses this job: Invalid qos; nothing was queued\n")
    assert output.startswith("#!/bin/bash")
    commands(checkout, sbatch="exit 0", squeue="exit 1")
    (checkout.root / "runs/a/launch-1").mkdir(parents=True)
    code, output = checkout.train("run=runs/a", "--dry-run", "--on=slurm", PATH=path)
    assert code == 2 and "squeue gives no answer" in output
    commands(checkout, squeue="exit 0")
    with open(checkout.root / "mscgan/shard.tar", "wb") as data:
        data.truncate(snapshot.LIMIT)
    code, output = checkout.train("run=runs/a", "--dry-run", "--on=slurm", PATH=path)
    assert code == 2 and "the largest file is mscgan/shard.tar" in output
    (checkout.root / "mscgan/shard.tar").unlink()
    for place in ("slurm", "here"):
        for arguments, said in (
            (["train.batch=7", "--nodes=2-4"], "batch 7 is not a multiple of 2 ranks"),
            (["train.batch=8", "--nodes=2-4"], "batch 8 is not a multiple of 3 ranks"),
            (["data.height=128", "data.width=64"], "holds images of 64x32"),
            (["--time=3"], "2 x 120 = 240 s at least; give --time 4"),
            (["run=launch/submit.py"], "cannot make the folder"),
            (["train.init=launch/submit.py"], "give a run's generator.safetensors"),
        ):
            where = (f"--on={place}", "--gpus-per-node=0")
            code, output = checkout.train("run=runs/a", "--dry-run", *where, *arguments, PATH=path)
            assert code == 2 and said in output.splitlines()[-1], output
    with small_disk(checkout.root / "runs/disk") as disk:
        disk.chmod(0o700)
        (disk / "a").mkdir()
        remount(disk, "ro")
        for folder in ("a", "b"):
            code, output = checkout.train("--dry-run", f"run=runs/disk/{folder}")
            assert code == 2 and "cannot" in output.splitlines()[-1] and "give another with run=FOLDER" in output
    (checkout.root / "runs/open").mkdir(mode=0o700)
    (checkout.root / "runs/open").chmod(0o770)
    code, output = checkout.train("run=runs/open", "--dry-run")
    assert code == 2 and "others may write" in output


def test_a_reader_that_has_seen_enough_ends_it_quietly(checkout):
    write_checkpoint(checkout.root / "runs/done", facts(config.load("demo"), 21_500))
    environment = checkout.env | {"PYTHONUNBUFFERED": ""}
    for what in ("--dry-run | head -1", "run=runs/done | true"):  # more than fits into a pipe, and less
        command = f"{sys.executable} launch/submit.py --config demo {what}"
        done = subprocess.run(["bash", "-c", command], cwd=checkout.root, env=environment, capture_output=True)
        assert b"Traceback" not in done.stderr and b"BrokenPipe" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("stdout", "codes", "outcome", "said"),
    [
        ("| head -1", "85 0", "saved", ""),
        (">/dev/full", "0", "done", "note: what is printed cannot be shown here (No space left on device); it is in "),
        (">&-", "0", "done", ""),
    ],
)
def test_a_training_whose_output_goes_nowhere_ends_well(stdout, codes, outcome, said, checkout):
    train = f"{sys.executable} launch/submit.py --config demo --tasks-per-node=1 run=runs/a {stdout}"
    done = subprocess.run(["bash", "-c", f"{train}; echo ${{PIPESTATUS[*]}} >&2"], cwd=checkout.root,
                          env=checkout.env | {"STEP": "0.2"}, capture_output=True, text=True)  # fmt: skip
    *lines, last = done.stderr.splitlines()
    assert last == codes and "\n".join(lines).startswith(said) and len(lines) == bool(said), done.stderr
    assert [note.get("outcome") for note in checkout.notes("runs/a")] == [None, outcome]


def test_shards_are_readable_as_the_users_umask_says_and_the_launch_is_not(checkout):
    (checkout.root / "shards").mkdir()
    text = "import pathlib; pathlib.Path('data').mkdir(); pathlib.Path('data/a.tar').write_text('')"
    (checkout.root / "shards/build.py").write_text(text)
    command = f"umask 022; {sys.executable} launch/submit.py --job shards -- synthetic"
    done = subprocess.run(["bash", "-c", command], cwd=checkout.root, env=checkout.env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (checkout.root / "data").stat().st_mode & 0o777 == 0o755
    assert (checkout.root / "data/a.tar").stat().st_mode & 0o777 == 0o644
    (launch,) = checkout.root.glob("runs/shards-*/launch-*")
    assert all(file.stat().st_mode & 0o077 == 0 for file in [launch, *launch.rglob("*")] if not file.is_symlink())


def test_submitting_never_imports_torch():
    check = (
        "import sys, launch.submit, launch.local, launch.jobs; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT).returncode == 0


def test_two_processes_train_here_from_the_snapshot_in_a_private_folder(checkout):
    code, output = checkout.train("--tasks-per-node=2", "run=runs/a", "train.seed=7")
    assert code == 0, output
    assert "this runs on this machine: 2 processes" in output
    assert "rank 0 of 2 begins at 0 with seed 7" in output and "code snapshot" in output and "submitit" not in output
    (launch,) = (checkout.root / "runs/a").glob("launch-*")
    assert [folder.stat().st_mode & 0o777 for folder in (launch.parent, launch)] == [0o700, 0o700]
    assert all(file.stat().st_mode & 0o077 == 0 for file in launch.rglob("*") if not file.is_symlink())
    assert "rank 1 of 2" in next(launch.glob("*_1_log.out")).read_text()
    assert "threads spin 2000" in output
    assert [note["event"] for note in checkout.notes("runs/a")] == ["start", "end"]


def test_a_run_without_a_name_gets_one_of_its_own(checkout):
    checkout.root.joinpath("own.yaml").write_text("data: {root: runs/demo/shards, height: 64, width: 32}")
    code, output = checkout.run("submit.py", "--config", "own.yaml", "--gpus-per-node=0", "--tasks-per-node=1")
    assert code == 0, output
    assert len(list(checkout.root.glob("runs/own-20??????-??????-??????/checkpoints/pairs-8"))) == 1


def test_editing_the_checkout_does_not_change_a_run_that_goes_on(checkout):
    process = checkout.start("submit.py", "--config", "demo", "run=runs/a", FAIL="0:4:1")
    checkout.wait_for("runs/a/launch-*/ranks/0-0/rank-00000.json")
    (checkout.root / "mscgan/train.py").write_text("raise SystemExit('edited')")
    output = process.communicate(timeout=60)[0]
    assert "begins at 4" in output and "edited" not in output


def test_ranks_are_told_of_the_copy_of_the_shards(checkout, tmp_path):
    shards = write_shards(tmp_path / "shards", persons=1, views=2)
    code, output = checkout.train("run=runs/a", f"data.root={shards}", f"data.stage_to={tmp_path}/local disk")
    assert code == 0, output
    (copy,) = (tmp_path / "local disk").glob("mscgan-*/manifest.json")
    assert f"data {shards} ['data.staged={copy.parent}']" in output


def test_ctrl_c_saves_and_the_same_command_goes_on(checkout):
    process = checkout.start("submit.py", "--config", "demo", "run=runs/a", STEP="0.3")
    checkout.wait_for("runs/a/checkpoints/pairs-2")
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 85, output
    saved = runs.newest_checkpoint(checkout.root / "runs/a")
    assert "saved at" in output and f"stopped: the same command goes on from {saved}\n" in output

    code, output = checkout.train("run=runs/a")
    assert code == 0 and f"begins at {saved.removeprefix('pairs-')} " in output


def test_a_killed_rank_ends_the_others_and_the_run_goes_on_if_it_had_got_further(checkout):
    code, output = checkout.train("--tasks-per-node=2", "run=runs/a", FAIL="1:2:0")
    assert code == 0 and "rank 1 failed; the end of" in output
    ends = [note for note in checkout.notes("runs/a") if note["event"] == "end"]
    assert [end["outcome"] for end in ends] == ["crash", "done"] and ends[0]["codes"]["1"] == 137


def test_what_is_no_file_in_the_runs_folder_is_a_line(checkout):
    for run in ("runs/a", "runs/b"):
        runs.private_folder(checkout.root / run)
    os.mkfifo(checkout.root / "runs/a/attempts.jsonl")
    (checkout.root / "runs/b/lease").mkdir()
    for run, said in (("runs/a", "attempts.jsonl: not a plain file"), ("runs/b", "lease cannot be read")):
        code, output = checkout.train(f"run={run}")
        assert code == 2 and said in output.splitlines()[-1], output
    code, output = checkout.run("jobs.py", "show", "runs/a")
    assert code == 0 and "attempts.jsonl cannot be read (not a plain file)" in output


def test_a_failure_before_any_checkpoint_is_not_tried_again_here(checkout):
    code, output = checkout.train("run=runs/a", FAIL="0:0:1")
    assert code == 1 and "before a new checkpoint" in output
    assert len(checkout.notes("runs/a")) == 2


def test_a_users_mistake_ends_the_run_with_2(checkout):
    code, _ = checkout.train("--tasks-per-node=2", "run=runs/a", FAIL="1:4:2")
    assert code == 2
    assert [note.get("outcome") for note in checkout.notes("runs/a")] == [None, "mistake"]


def test_each_run_of_a_sweep_has_its_value_and_its_folder(checkout):
    code, output = checkout.train("run=runs/s", "--sweep=train.seed=3,4", "--gpus-per-node=0", "--tasks-per-node=1")
    assert code == 0
    assert "with seed 3" in output and "with seed 4" in output
    assert {folder.parents[1].name for folder in checkout.root.glob("runs/s/*/checkpoints/pairs-8")} == {
        "train.seed=3", "train.seed=4",
    }  # fmt: skip
    code, output = checkout.train("run=runs/s", "--sweep=train.seed=2,3", "--gpus-per-node=0", "--tasks-per-node=1")
    assert code == 0 and "with seed 2" in output and "begins at 8 with seed 3" in output  # goes on where it stood
    assert len(list(checkout.root.glob("runs/s/*/checkpoints"))) == 3


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run=runs/$(touch F)"], "may hold letters"),
        (["run=runs/%j"], "may hold letters"),
        (["run=runs/a\nb"], "control characters"),
        (["run=" + "a" * 300], "255 bytes at most"),
        (["data.root=" + "a" * 300], "255 bytes at most"),
        (["run=$UNSET"], "the variable UNSET is not set"),
        (["run="], "run= is empty"),
        (["--sweep=train.lr"], "expected key=a,b,c"),
        (["--sweep=train.lr=1e-4,,2e-4"], "expected key=a,b,c"),
        (["--sweep=train.betas=[0.5,0.9"], "expected key=a,b,c"),
        (["--", "train.lr=1"], "give train.lr=1 before it"),
        (["--sweep=run=a,b"], "sweep another key"),
        (["--sweep=train.lr=1e-4,2e-4,0.0001"], "train.lr=0.0001 is there twice"),
        (["--sweep=train.lr=1e-4", "--sweep=train.lr=2e-4"], "given twice"),
        (["--on=slurm"], "SLURM is installed here, but its controller does not answer" if SLURM else "no SLURM is set"),
        (["train.speed=1"], "train.speed"),
        (["--job=shards"], "takes its arguments after --"),
        (["--prepare"], "is for the .sbatch files"),
        (["--job=evaluate", "run=runs/a", "data.root=elsewhere"], "would do nothing"),
        (["--job=evaluate", "--sweep=run=runs/a,runs/b"], "would do nothing"),
        (["--job=evaluate", "run=runs/a"], "no run folder 'runs/a'"),
        (["--job=generate"], "runs/demo has no config.yaml"),  # the preset's run
        (["lr=1e-4"], "command line: there is no key 'lr'; did you mean train.lr=1e-4?"),
        (["run=runs/a", "data.root=runs/demo/shard"], "'runs/demo/shard'; did you mean runs/demo/shards?"),
        (["run=runs/a", "data.root=''"], "no shard folder is given"),
        (["run=runs/a", "data.height=128", "data.width=64"], "holds images of 64x32"),
        (["run=runs/a", "train.batch=7"], "batch 7 is not a multiple of 2 ranks x 1; set train.batch to 6 or 8"),
        (["run=runs/a", "--tasks-per-node=3"], "batch 8 is not a multiple of 3 ranks"),
        (["run=runs/a", "--sweep=train.batch=8,7"], "batch 7 is not a multiple"),
        (["run=runs/a", "train.init=gone.safetensors"], "train.init=gone.safetensors: No such file"),
        (["run=runs/a", "train.init=launch/submit.py"], "give a run's generator.safetensors"),
    ],
)
def test_a_mistake_gives_one_line_and_exit_code_2_and_leaves_nothing(checkout, arguments, complaint):
    code, output = checkout.train("--tasks-per-node=2", *arguments)
    assert code == 2 and complaint in output and output.count("\n") == 1 and output.startswith("error: ")
    assert [folder.name for folder in (checkout.root / "runs").iterdir()] == ["demo"]
    assert [folder.name for folder in (checkout.root / "runs/demo").iterdir()] == ["shards"]


def test_a_run_that_goes_on_needs_its_first_weights_no_more(checkout):
    (checkout.root / "runs/a/checkpoints/pairs-6").mkdir(parents=True)
    code, output = checkout.train("run=runs/a", "train.init=gone.safetensors")
    assert code == 0 and "begins at 6" in output, output


@pytest.mark.parametrize("job", ["evaluate", "generate"])
def test_a_trained_run_is_all_that_evaluate_and_generate_need(job, checkout):
    (checkout.root / "runs/a").mkdir()
    for name in ("config.yaml", "generator.safetensors"):
        (checkout.root / "runs/a" / name).touch()
    (checkout.root / f"mscgan/{job}.py").write_text("import sys; print('got', *sys.argv[1:])")
    expected = f"got --run {checkout.root}/runs/a --pairs 2"
    for preset in ([], ["--config=market1501"]):
        code, output = checkout.run("submit.py", f"--job={job}", *preset, "run=runs/a", "--", "--pairs", "2")
        assert code == 0 and expected in output.splitlines()
    code, output = checkout.run("submit.py", f"--job={job}")
    assert code == 2 and "give run=FOLDER" in output


def on_slurm(tmp_path, **values):
    """What submit.py checks for a training of 2 ranks on SLURM."""
    resolved = config.load("demo", [f"run={tmp_path}/run", *(f"{key}={value}" for key, value in values.items())])
    plan = runs.Plan("n", "train", "", "", "", [])
    start.check_work(plan, [start.Target(resolved, resolved.run)], [2], on_slurm=True)


def test_on_slurm_only_what_the_nodes_see_too_is_refused(tmp_path, capsys):
    """/proc stands for a disk that is not the run folder's: the nodes' own may be mounted there."""
    on_slurm(tmp_path, **{"data.root": "/proc/nodes/own"})
    assert capsys.readouterr().err.startswith("note: /proc/nodes/own/manifest.json is not on this machine")
    for root in (f"{tmp_path}/gone", "''"):
        with pytest.raises(UserError, match="no shard folder"):
            on_slurm(tmp_path, **{"data.root": root})
    shards = write_shards(tmp_path / "shards", persons=1, views=2)
    on_slurm(tmp_path, **{"data.root": shards, "train.init": "/proc/nodes/own.safetensors"})
    assert "note: /proc/nodes/own.safetensors" in capsys.readouterr().err
    with pytest.raises(UserError, match="train.init="):
        on_slurm(tmp_path, **{"data.root": shards, "train.init": tmp_path / "gone"})
    with pytest.raises(UserError, match="holds images of 64x32"):
        on_slurm(tmp_path, **{"data.root": shards, "data.height": 32})
    assert capsys.readouterr().err == ""


def test_a_run_folder_that_others_may_write_to_is_refused(tmp_path, monkeypatch):
    tmp_path.chmod(0o775)
    with pytest.raises(UserError, match="others may write"):
        runs.private_folder(tmp_path)
    tmp_path.chmod(0o755)
    assert runs.private_folder(tmp_path) == tmp_path
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(UserError, match="belongs to user id"):
        runs.private_folder(tmp_path)


def test_too_few_gpus_are_refused_and_auto_takes_all(monkeypatch):
    monkeypatch.setattr(local, "gpus_here", lambda: 4)
    plan = runs.Plan("n", "train", "", "", "", [], settings={"nodes": "2", "gpus_per_node": "auto"})
    assert local.processes(plan, [16]) == 4
    plan.settings |= {"nodes": "1", "gpus_per_node": "8"}
    with pytest.raises(UserError, match="8 GPUs are asked for, but this machine has 4"):
        local.processes(plan, [16])
    monkeypatch.setattr(local, "gpus_here", lambda: 0)
    assert local.processes(plan, [16]) == 8  # a rehearsal on the CPU


@pytest.mark.parametrize(
    ("cores", "batches", "expected"),
    [(1, [8], 1), (7, [8], 1), (8, [8], 2), (12, [8], 2), (12, [6], 3), (64, [8], 4), (64, [1], 1), (64, [8, 6], 2)],
)
def test_without_a_gpu_training_has_as_many_processes_as_cores_and_batch_allow(cores, batches, expected, monkeypatch):
    monkeypatch.setattr(local, "gpus_here", lambda: 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    plan = runs.Plan("n", "train", "", "", "", [], settings={"nodes": "1", "gpus_per_node": "auto"})
    assert local.processes(plan, batches) == expected
    plan.settings["tasks_per_node"] = "5"
    assert local.processes(plan, batches) == 5


def test_an_evaluation_takes_all_gpus_and_without_one_a_process_a_core(monkeypatch):
    plan = runs.Plan("n", "evaluate", "", "", "", [], settings={"nodes": "1", "gpus_per_node": "auto"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    for gpus, expected in ((4, 4), (0, 3)):
        monkeypatch.setattr(local, "gpus_here", lambda gpus=gpus: gpus)
        assert local.processes(plan, []) == expected
    plan.settings["tasks_per_node"] = "2"
    assert local.processes(plan, []) == 2


@pytest.mark.parametrize(
    ("gpus", "wanted", "each"), [(0, "auto", "all GPUs"), (3, "auto", "all GPUs"), (4, "2", "2 GPUs"), (0, "0", "CPUs")]
)
def test_several_nodes_need_a_cluster_or_gpus_enough(gpus, wanted, each, monkeypatch):
    monkeypatch.setattr(local, "gpus_here", lambda: gpus)
    plan = runs.Plan("n", "train", "", "", "", [], settings={"nodes": "4", "gpus_per_node": wanted})
    said = f"give 4 nodes with {each} each, and here are {gpus} GPUs; give --nodes 1"
    with pytest.raises(UserError, match=said):
        local.processes(plan, [512])
    monkeypatch.setattr(local, "gpus_here", lambda: 8)
    if wanted != "0":
        assert local.processes(plan, [512]) == 8


def test_several_nodes_without_a_cluster_are_refused_before_any_folder_is_made(checkout):
    code, output = checkout.train("run=runs/a", "--nodes=4")
    assert (
        code == 2
        and output.startswith("error: this would run on this machine, without SLURM")
        and output.count("\n") == 1
    )
    assert not (checkout.root / "runs/a").exists()
    assert checkout.train("run=runs/a", "--nodes=4", "--dry-run")[0] == 0


def facts(config_, pairs, stage="joint", began=15_000, ends=21_500):
    return {"pairs": pairs, "stage": stage, "began": began, "ends": ends, "made_with": schedule.made_with(config_)}


def write_checkpoint(run, found, schema=schedule.SCHEMA):
    folder = run / f"checkpoints/pairs-{found['pairs']:09d}"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps({"schema": schema, "state": found}))
    for file in (folder / "generator.safetensors", run / "generator.safetensors", run / "config.yaml"):
        file.write_text("as training leaves it")


def test_a_run_that_is_complete_is_said_to_be_so_before_anything_starts(checkout):
    write_checkpoint(checkout.root / "runs/a b", facts(config.load("demo"), 21_500))
    code, output = checkout.train("run=runs/a b")
    assert (code, output.splitlines()) == (0, [
        "already complete: 21500 pairs in runs/a b; next:",
        "    python -m mscgan.evaluate --run 'runs/a b'",
        "    python -m mscgan.generate --run 'runs/a b' --pairs 8",
        "    python -m mscgan.report 'runs/a b'    # writes 'runs/a b/report.html'",
    ])  # fmt: skip
    left = {path.name for path in (checkout.root / "runs/a b").iterdir()}
    assert left == {"checkpoints", "config.yaml", "generator.safetensors"}
    code, output = checkout.train("run=runs/a b", "train.seed=7")
    assert code == 2 and "pairs-000021500 was made with train.seed 0, now it is 7" in output
    code, output = checkout.train("run=runs/a b", "train.pairs.I=30000")
    assert code == 2 and "is in stage joint" in output and output.count("\n") == 1


@pytest.mark.parametrize("file", ["config.yaml", "generator.safetensors"])
def test_a_complete_run_that_lost_what_others_read_goes_to_training_which_writes_it_again(file, checkout):
    write_checkpoint(checkout.root / "runs/a", facts(config.load("demo"), 21_500))
    lost = checkout.root / "runs/a" / file
    lost.write_text("") if file == "generator.safetensors" else lost.unlink()
    code, output = checkout.train("run=runs/a")
    assert code == 0 and "rank 0 of" in output and "already complete" not in output


def test_a_checkpoint_of_an_older_version_is_left_for_training_to_refuse(checkout):
    write_checkpoint(checkout.root / "runs/a", {"pairs": 20_000, "stage": "II", "made_with": {}}, schema=3)
    code, output = checkout.train("run=runs/a")
    assert code == 0 and "rank 0 of" in output


def test_a_run_that_is_not_complete_goes_on(checkout):
    write_checkpoint(checkout.root / "runs/a", facts(config.load("demo"), 17_000))
    code, output = checkout.train("run=runs/a")
    assert code == 0 and "rank 0 of" in output and "already complete" not in output


def test_auto_takes_the_most_gpus_of_the_partitions_nodes(monkeypatch):
    listed = "main*|gpu:a100:4(S:0-1)\nmain*|gpu:8\nbig|gpu:h200:16\ncpu|(null)\n"

    def sinfo(*arguments):
        wanted = [argument.partition("=")[2] for argument in arguments if argument.startswith("--partition=")]
        lines = [line for line in listed.splitlines() if not wanted or line.startswith(f"{wanted[0]}|")]
        return subprocess.CompletedProcess(arguments, 0, "\n".join(lines), "")

    monkeypatch.setattr(slurm, "command", sinfo)
    assert [slurm.gpus_per_node(partition) for partition in ("", "big", "cpu")] == [8, 16, 0]


def make_project(root):
    for name in (
        "mscgan/a.py",
        "mscgan/__pycache__/a.pyc",
        "launch/new.py",
        "launch/ignored.py",
        "runs/big.tar",
        "secret.txt",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "mscgan/link.py").symlink_to("/etc/passwd")


def copied(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_a_snapshot_holds_tracked_and_new_code_but_nothing_else(tmp_path):
    root = tmp_path / "project"
    make_project(root)
    (root / ".gitignore").write_text("ignored.py\n")
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "mscgan/a.py"], ["commit", "-qm", "first"]):
        subprocess.run(git + command, check=True)
    commit = snapshot.take(root, tmp_path / "copy")
    assert copied(tmp_path / "copy") == ["launch/new.py", "mscgan/a.py"]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert commit == f"{head}+changes"


def test_a_snapshot_works_without_git(tmp_path):
    make_project(tmp_path / "project")
    assert snapshot.take(tmp_path / "project", tmp_path / "copy") == "no git"
    assert copied(tmp_path / "copy") == ["launch/ignored.py", "launch/new.py", "mscgan/a.py"]


def test_a_snapshot_of_a_wheel_holds_our_packages_and_no_other(tmp_path, monkeypatch):
    for name in ("mscgan_tools/launch/submit.py", "mscgan_tools/shards/build.py", "mscgan/train.py", "torch/torch.py"):
        (tmp_path / "site" / name).parent.mkdir(parents=True)
        (tmp_path / "site" / name).touch()
    monkeypatch.setattr(snapshot.mscgan, "__file__", str(tmp_path / "site/mscgan/__init__.py"))
    monkeypatch.setattr(snapshot.metadata, "version", lambda name: "1.2")
    assert snapshot.take(tmp_path / "site/mscgan_tools", tmp_path / "copy") == "version 1.2"
    assert copied(tmp_path / "copy") == ["launch/submit.py", "mscgan/train.py", "shards/build.py"]


def test_data_among_the_code_is_not_copied(tmp_path, monkeypatch):
    make_project(tmp_path / "project")
    (tmp_path / "project/mscgan/shard.tar").write_bytes(bytes(2000))
    monkeypatch.setattr(snapshot, "LIMIT", 1000)
    with pytest.raises(UserError, match="largest file is mscgan/shard.tar"):
        snapshot.take(tmp_path / "project", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_jobs_name_may_hold_what_the_list_is_cut_at():
    (found,) = slurm._parse("7_1|RUNNING|my job|a|n1|None\n").items()
    assert found == ("7_1", slurm.State("my job|a", "RUNNING", "n1", "None"))
