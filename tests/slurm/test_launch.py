"""The launcher against a real scheduler: what it queues, what it refuses, and what never reaches a node."""

import os
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import save_file
from training import ROOT, SECONDS, SUBMIT, TINY, submit, train

from launch import options
from launch import submit as launcher
from mscgan.errors import UserError
from tests.shard_factory import write_shards

SHORT = ["train.pairs.I=16", "train.pairs.II=16"]
ONE = "--nodes 1 --gpus-per-node 0 --cpus-per-task 1".split()


def test_two_nodes_with_two_ranks_end_with_the_weights_of_four_ranks_on_this_machine(cluster, shards, tmp_path):
    on_slurm = train(cluster, shards, tmp_path / "slurm", *SHORT, ranks=2)
    here = [*SUBMIT, "--on=here", "--nodes=1", "--gpus-per-node=0", "--tasks-per-node=4", *TINY, *SHORT]
    environment = {name: value for name, value in cluster.env.items() if name != "SLURM_CONF"}
    done = subprocess.run(
        [*here, f"data.root={shards}", f"run={tmp_path}/here"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "this runs on this machine: 4 processes" in done.stdout
    assert (tmp_path / "here" / "generator.safetensors").read_bytes() == on_slurm.completes()


def test_a_sweep_of_four_ends_with_four_results(cluster, shards, tmp_path):
    swept = ["--sweep", "train.seed=0,1", "--sweep", "train.lr=1e-4,1e-3", "--preflight=false"]
    training = train(cluster, shards, tmp_path / "sweep", *SHORT, *swept, nodes=1)
    training.array_completes(4)
    weights = [file.read_bytes() for file in (tmp_path / "sweep").glob("*/generator.safetensors")]
    assert len(weights) == len(set(weights)) == 4


def test_an_evaluation_on_two_nodes_has_the_numbers_of_this_machine(cluster, undisturbed):
    undisturbed.completes()
    place = "--nodes=2 --gpus-per-node=0 --tasks-per-node=1 --cpus-per-task=1".split()
    job = submit(
        cluster, "--job=evaluate", *place, f"run={undisturbed.run}", "--", f"--out={undisturbed.run}/there.json"
    )
    assert ended(cluster, job) == "COMPLETED"
    here = [sys.executable, "-m", "mscgan.evaluate", f"--run={undisturbed.run}", f"--out={undisturbed.run}/here.json"]
    done = subprocess.run(here, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (undisturbed.run / "there.json").read_bytes() == (undisturbed.run / "here.json").read_bytes()


def test_sbatch_accepts_what_dry_run_prints(cluster, shards, tmp_path):
    command = [*SUBMIT, "--nodes=2", "--gpus-per-node=2", "--comment=two-words", *TINY, f"data.root={shards}"]
    command += [f"run={tmp_path}/run", "--dry-run"]
    done = subprocess.run(command, env=cluster.env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run").exists()
    (tmp_path / "script.sh").write_text(done.stdout)
    job = cluster.run("sbatch", "--parsable", "--hold", str(tmp_path / "script.sh"))
    queued = cluster.job(job)
    cluster.run("scancel", job)
    assert (queued["NumNodes"], queued["TresPerNode"], queued["Comment"]) == ("2-2", "gres:gpu:2", "two-words")


def test_an_impossible_request_is_refused_with_the_schedulers_reason(cluster, shards, tmp_path):
    command = [*SUBMIT, "--nodes=5", "--gpus-per-node=0", *TINY, f"data.root={shards}", f"run={tmp_path}/run"]
    done = subprocess.run(command, env=cluster.env, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Requested node configuration is not available" in done.stderr and "nothing was queued" in done.stderr
    assert cluster.run("squeue", "-h", "--states=PENDING") == ""


def test_a_batch_that_does_not_divide_is_refused_before_anything_is_queued(cluster, shards, tmp_path):
    command = [*SUBMIT, "--nodes=3", "--gpus-per-node=0", *TINY, "train.batch=4", f"data.root={shards}"]
    done = subprocess.run([*command, f"run={tmp_path}/run"], env=cluster.env, capture_output=True, text=True)
    assert done.returncode == 2 and "batch 4 is not a multiple of 3 ranks x 1" in done.stderr
    assert not (tmp_path / "run").exists()


def test_submitting_needs_no_torch(cluster, shards, tmp_path):
    arguments = [*ONE, *TINY, f"data.root={shards}", f"run={tmp_path}/run"]
    code = "import sys; from launch import submit; submit.main(); print({'torch', 'nvidia'} & set(sys.modules))"
    environment = cluster.env | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr
    cluster.run("scancel", done.stdout.split()[1].rstrip(":"))


def hostile(mark) -> list[str]:
    """Values that would make the file `mark`, were any of them run by a shell."""
    run = f"touch {mark}"
    return [f"$({run})", f"`{run}`", f'"; {run}; "', f"'; {run}; '", f"x; {run} #", f"x\n{run}\n#", "x\x1b[31m"]


@pytest.mark.parametrize("option", options.OPTIONS)
def test_hostile_values_of_an_option_are_refused_or_stand_in_a_comment_of_the_script(
    option, cluster, tmp_path, monkeypatch, capsys
):
    """What goes to sbatch as it is test_sites.py follows to its job."""
    for key, value in cluster.env.items():
        monkeypatch.setenv(key, value)
    monkeypatch.chdir(tmp_path)
    flag = f"--{option.replace('_', '-')}"
    for value in hostile(tmp_path / "mark"):
        argv = ["submit.py", "--job", "shards", f"{flag}={value}", "--dry-run", "--", "synthetic", "--help"]
        monkeypatch.setattr(sys, "argv", argv)
        try:
            launcher.main()
        except UserError as error:
            assert "\n" not in str(error)
            assert flag in str(error) or "SLURM refuses this job" in str(error)
        script = capsys.readouterr().out
        assert all(line.startswith("#SBATCH ") for line in script.splitlines() if "touch" in line)
        subprocess.run(["bash", "-c", script.partition("# setup")[0]], cwd=tmp_path, check=True)
        if not value.isprintable():
            assert script == ""
    assert list(tmp_path.iterdir()) == []


def test_hostile_values_of_a_program_reach_it_as_they_are_and_run_nothing(cluster, tmp_path):
    mark = tmp_path / "mark"
    *plain, newline, escape = hostile(mark)
    root, weights = tmp_path / plain[0], tmp_path / plain[4].removesuffix(" #")  # YAML takes that for a comment
    (write_shards(root, persons=1, views=2) / "train-00000.tar").unlink()  # training finds that, the launcher does not
    weights.parent.mkdir(parents=True)
    save_file({"none": torch.zeros(1)}, weights)
    wild = [f"data.root={root}", f"train.init={tmp_path / plain[4]}"]
    batch = ["sbatch", "--parsable", "--gpus-per-node=0", f"--output={tmp_path}/log", "launch/train.sbatch"]
    jobs = [
        submit(cluster, *ONE, "--config=demo", f"run={tmp_path}/train", *wild),
        submit(cluster, *ONE, "--job=shards", "--", "--help", *plain, cwd=tmp_path),
        cluster.run(*batch, "--config=demo", f"run={tmp_path}/plain", *wild, cwd=ROOT),
    ]
    states = [ended(cluster, job) for job in jobs]
    assert states == ["FAILED", "COMPLETED", "FAILED"]
    for run in ("train", "plain"):
        assert plain[0] in "".join(file.read_text() for file in tmp_path.glob(f"{run}/launch-*/*_log.out"))
    assert not mark.exists()
    for value in (newline, escape):
        command = [*SUBMIT, *ONE, "--job=shards", "--", value]
        done = subprocess.run(command, env=cluster.env, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 2 and "control characters are not accepted" in done.stderr
    assert not mark.exists()


def ended(cluster, job: str) -> str:
    end = time.monotonic() + SECONDS
    while (state := cluster.job(job)["JobState"]) in ("PENDING", "RUNNING", "COMPLETING"):
        assert time.monotonic() < end, state
        time.sleep(0.2)
    return state


@pytest.mark.parametrize("harm", ["group may write", "another user's"])
def test_a_run_folder_that_is_not_the_users_alone_is_refused(harm, cluster, shards, tmp_path):
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    if harm == "group may write":
        run.chmod(0o770)
    elif os.getuid() == 0:
        os.chown(run, 65534, 65534)
    else:
        pytest.skip("only root can give a folder to another user")
    command = [*SUBMIT, *ONE, *TINY, f"data.root={shards}", f"run={run}"]
    done = subprocess.run(command, env=cluster.env, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert list(run.iterdir()) == []


def test_jobs_lists_and_cancels_without_accounting(cluster, shards, tmp_path):
    job = submit(cluster, *ONE, *TINY, f"data.root={shards}", f"run={tmp_path}/run")
    jobs = [sys.executable, str(ROOT / "launch/jobs.py")]
    assert job in cluster.run(*jobs, "list")
    cluster.run(*jobs, "cancel", job)
    assert ended(cluster, job) == "CANCELLED"
    (line,) = [line for line in cluster.run(*jobs, "list").splitlines() if job in line.split()]
    assert "CANCELLED" in line


@pytest.mark.slow
def test_a_cluster_with_accounting_trains_and_remembers(accounting_cluster, shards, tmp_path):
    training = train(accounting_cluster, shards, tmp_path / "run", *SHORT, nodes=1)
    assert training.completes()
    listed = accounting_cluster.run(sys.executable, str(ROOT / "launch/jobs.py"), "list")
    assert "COMPLETED" in listed
    end = time.monotonic() + SECONDS
    while "COMPLETED" not in accounting_cluster.run("sacct", "-X", "-n", f"--jobs={training.job}", "--format=State"):
        assert time.monotonic() < end
        time.sleep(0.5)
