"""A checkout of the launcher with a stand-in for training: the tests of launch/ start in a second and need no torch."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from mscgan.data.manifest import SCHEMA

ROOT = Path(__file__).resolve().parents[1]

# Counts pairs to 8, checkpoints every 2, saves on a signal and exits with 85, as mscgan.train does.
TRAIN = """\
import argparse, os, signal, sys, time
from pathlib import Path

from mscgan.data.manifest import SCHEMA
import yaml

parser = argparse.ArgumentParser()
parser.add_argument("--config")
parser.add_argument("overrides", nargs="*")
given = parser.parse_args()
config = yaml.safe_load(Path(given.config).read_text())
rank, run, told = int(os.environ["RANK"]), Path(config["run"]), []
for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
    signal.signal(number, lambda number, frame: (told.append(number), signal.signal(number, signal.SIG_DFL)))
def newest():
    return max([int(folder.name[6:]) for folder in run.glob("checkpoints/pairs-*")], default=0)

pairs = newest()
print(f"rank {rank} of {os.environ['WORLD_SIZE']} begins at {pairs} with seed {config['train']['seed']}", flush=True)
print("threads spin", os.environ.get("GOMP_SPINCOUNT"), flush=True)
print("code", Path(__file__).parents[1].name, "data", config["data"]["root"], given.overrides, flush=True)
# FAIL=RANK:CHECKPOINT:CODE: the rank ends so in the first attempt, once there is that checkpoint; code 0: by kill -9
fails = os.environ.get("FAIL", "").split(":")
while pairs < 8:
    if fails[0] == str(rank) and newest() >= int(fails[1]) and os.environ["MSCGAN_ATTEMPT"] == "0":
        os.kill(os.getpid(), 9) if fails[2] == "0" else sys.exit(int(fails[2]))
    time.sleep(float(os.environ.get("STEP", "0.05")))
    pairs += 1 if rank == 0 or newest() > pairs else 0  # the others follow rank 0's checkpoints
    if rank == 0 and (pairs % 2 == 0 or told):
        (run / f"checkpoints/pairs-{pairs}").mkdir(parents=True)
    if told:
        print("saved at", pairs, flush=True)
        sys.exit(85)
print("done", flush=True)
"""


class Checkout:
    """`root` holds launch/ and what it needs of mscgan/. Commands run there, without SLURM and the user's settings."""

    def __init__(self, root: Path):
        self.root = root
        shutil.copytree(ROOT / "launch", root / "launch", ignore=shutil.ignore_patterns("__pycache__"))
        (root / "mscgan/data").mkdir(parents=True)
        names = (
            "__init__ arguments asked checks config errors evaluation_file files heartbeat keys lease owner paths "
            "process rates schedule step table2 tolerance data/manifest"
        )
        for name in names.split():
            shutil.copy(ROOT / f"mscgan/{name}.py", root / f"mscgan/{name}.py")
        shutil.copytree(ROOT / "mscgan/configs", root / "mscgan/configs")
        (root / "mscgan/train.py").write_text(TRAIN)
        shards = root / "runs/demo/shards"  # the demo's, as far as the launcher looks
        shards.mkdir(parents=True)
        train = {"images": 2, "persons": 1, "pairs": 2, "tars": [], "pair_table": {"name": "a", "sha256": 64 * "0"}}
        train["image_table"] = {"name": "b", "sha256": 64 * "0"}
        manifest = {"schema": SCHEMA, "dataset": "synthetic", "height": 64, "width": 32, "splits": {"train": train}}
        (shards / "manifest.json").write_text(json.dumps(manifest))
        hidden = ("SLURM_", "SBATCH_", "SUBMITIT_", "MSCGAN_", "PYTHONPATH")
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
        self.env |= {
            "XDG_STATE_HOME": f"{root}/state",
            "XDG_CONFIG_HOME": f"{root}/config",
            "SLURM_CONF": f"{root}/slurm.conf",
        }
        (root / "slurm.conf").touch()  # where this machine has a SLURM, its commands find no controller there
        (root / "config/mscgan").mkdir(parents=True)
        (root / "config/mscgan/cluster.yaml").write_text("on: here\n")

    def squeue(self, *lines: str, code: int = 0) -> str:
        """A PATH on which squeue prints these lines and ends with this code."""
        file = self.root / "bin/squeue"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!{sys.executable}\nprint({chr(10).join(lines)!r})\nraise SystemExit({code})\n")
        file.chmod(0o700)
        return f"{file.parent}:{self.env['PATH']}"

    def start(self, *command: str, **environment: str) -> subprocess.Popen:
        """Starts `launch/COMMAND...` in a session of its own, stderr joined to stdout."""
        return subprocess.Popen(
            [sys.executable, f"launch/{command[0]}", *command[1:]],
            cwd=self.root, env=self.env | environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def run(self, *command: str, **environment: str) -> tuple[int, str]:
        """Exit code and output of `launch/COMMAND...`."""
        process = self.start(*command, **environment)
        output = process.communicate(timeout=60)[0]
        return process.returncode, output

    def train(self, *arguments: str, **environment: str) -> tuple[int, str]:
        return self.run("submit.py", "--config", "demo", *arguments, **environment)

    def notes(self, run: str) -> list[dict]:
        return [json.loads(line) for line in (self.root / run / "attempts.jsonl").read_text().splitlines()]

    def wait_for(self, pattern: str) -> Path:
        """Waits until a file appears that `pattern`, below the checkout, matches."""
        end = time.monotonic() + 30
        while not (found := list(self.root.glob(pattern))):
            assert time.monotonic() < end, f"{pattern} did not appear"
            time.sleep(0.02)
        return found[0]
