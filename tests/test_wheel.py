"""The wheel, built and unpacked: its commands run in an empty folder, without a checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder like site-packages with the wheel in it, beside another package."""
    source = tmp_path_factory.mktemp("source")
    for part in ("mscgan", "launch", "shards", "benchmarks"):
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, source], cwd=source, check=True, capture_output=True)
    site = tmp_path_factory.mktemp("site-packages")
    zipfile.ZipFile(next(source.glob("*.whl"))).extractall(site)
    (site / "torch_of_another_size").mkdir()
    (site / "torch_of_another_size/big.py").write_text("")
    return site


def run(site, folder, command: str, *arguments: str) -> subprocess.CompletedProcess:
    """Types a command of the wheel in `folder`."""
    program = "import sys; sys.argv = sys.argv[1:]; from mscgan_tools.launch.commands import main; main()"
    hidden = ("SLURM_", "SBATCH_", "SUBMITIT_", "MSCGAN_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    environment |= {"PYTHONPATH": str(site), "XDG_STATE_HOME": f"{folder}/state", "XDG_CONFIG_HOME": f"{folder}/config"}
    (folder / "slurm.conf").touch()
    environment["SLURM_CONF"] = f"{folder}/slurm.conf"
    started = [sys.executable, "-P", "-c", program, f"/bin/{command}", *arguments]
    return subprocess.run(started, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("command", ["mscgan-submit", "mscgan-jobs", "mscgan-pairs"])
def test_commands_start(site, tmp_path, command):
    done = run(site, tmp_path, command, "--help")
    assert done.returncode == 0 and "usage" in done.stdout, done.stderr


def test_shards_are_built_by_several_processes(site, tmp_path):
    size = ("--people", "5", "--views", "2", "--height", "64", "--width", "32", "--workers", "2")
    built = run(site, tmp_path, "mscgan-build-shards", "synthetic", "--out", "s", *size)
    assert built.returncode == 0 and (tmp_path / "s/manifest.json").is_file(), built.stderr


def test_a_job_runs_from_a_copy_of_the_wheels_code_alone(site, tmp_path):
    job = run(site, tmp_path, "mscgan-submit", "--on=here", "--job=shards", "--", "--help")
    assert job.returncode == 0 and "Makes a folder of shards" in job.stdout, job
    (snapshot,) = tmp_path.glob("runs/*/launch-*/snapshot")
    assert sorted(folder.name for folder in snapshot.iterdir()) == ["benchmarks", "launch", "mscgan", "shards"]
    code = {file.relative_to(ROOT) for part in ("mscgan", "launch") for file in (ROOT / part).rglob("*.py")}
    assert code <= {file.relative_to(snapshot) for file in snapshot.rglob("*.py")}
    assert (snapshot / "mscgan/configs/demo.yaml").is_file() and (snapshot / "mscgan/report/page.html").is_file()
    assert (snapshot / "launch/cluster.yaml").is_file()
