"""`jobs.py save` and `stop` at random moments of a training on this machine, from before its first step to after its
last: what is asked is done or refused in words, and never done to the next training of the run."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mscgan.errors import DONE, MISTAKE, STOPPED
from tests.shard_factory import write_shards

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 20
SECONDS = 16  # of a training, its start included
TINY = (
    "--on here --config demo data.height=32 data.width=32 data.threads=1 mscgan.base=8 train.backend=ddp "
    "train.pairs.I=1200 train.pairs.joint=0 log.every=8 log.checkpoint=80 log.checkpoint_minutes=0 log.samples=100000"
).split()


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("races") / "shards", height=32, width=32)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_what_is_asked_at_any_moment_is_done_or_refused(seed, shards, tmp_path):
    chance, run = random.Random(seed), tmp_path / "run"
    environment = os.environ | {"XDG_STATE_HOME": str(tmp_path / "state"), "OMP_NUM_THREADS": "1"}

    def start(program, *arguments):
        command = [sys.executable, f"launch/{program}", *arguments]
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    train = ["submit.py", *TINY, f"data.root={shards}", f"run={run}"]
    training = start(*train)
    while not list(run.glob("launch-*/job.json")):
        assert training.poll() is None, training.communicate()[0]
        time.sleep(0.01)
    time.sleep(chance.uniform(0, SECONDS))
    asked = [start("jobs.py", what, str(run)) for what in chance.choice([["stop"], ["save"], ["stop", "save"]])]
    printed = [process.communicate(timeout=200)[0] for process in asked]
    output = training.communicate(timeout=200)[0]
    for process, text in zip([training, *asked], [output, *printed], strict=True):
        assert process.returncode in (DONE, MISTAKE, STOPPED) and "Traceback" not in text, text
    assert training.returncode in (DONE, STOPPED), output
    if training.returncode == STOPPED:
        assert "will end after its next checkpoint" in "".join(printed)
    for process, text in zip(asked, printed, strict=True):
        assert text.count("\n") == 1 and (process.returncode == DONE) == (" saved pairs-" in text or "will end" in text)

    again = start(*train)
    output = again.communicate(timeout=200)[0]
    assert again.returncode == DONE, output
    left = list(run.glob("asked/*"))  # of a training that was complete by then: no other is meant by it
    assert not left or training.returncode == DONE and {file.read_text() for file in left} == {f"local-{training.pid}"}
    pairs = [json.loads(line)["pairs"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert pairs == list(range(8, 1201, 8))
