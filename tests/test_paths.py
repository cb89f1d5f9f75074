"""mscgan/paths.py, and that every path of the configuration goes through it."""

import subprocess
import sys
from pathlib import Path

import pytest

from mscgan import config, paths
from mscgan.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/anna")
    monkeypatch.setenv("SCRATCH", "/scratch/anna")
    monkeypatch.delenv("UNSET", raising=False)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("~/x", "/home/anna/x"), ("~", "/home/anna"), ("$SCRATCH/x", "/scratch/anna/x"),
        ("${SCRATCH}x", "/scratch/annax"),
        ("a~/b", "a~/b"), ("$(touch F)", "$(touch F)"), ("a$", "a$"), ("", ""),
    ],
)  # fmt: skip
def test_a_path_is_what_it_means(text, found):
    assert paths.expanded(text, "it") == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("$UNSET/x", "it: the variable UNSET is not set"), ("${UNSET}", "UNSET is not set"),
        ("~nobody-at-all/x", "nobody's home"),
        ("a" * 256, "255 bytes at most"), ("a/" + "ä" * 128, "255 bytes at most"), ("a\0", "no zero byte"),
    ],
)  # fmt: skip
def test_a_path_that_means_nothing_is_refused(text, said):
    with pytest.raises(UserError, match=said):
        paths.expanded(text, "it")


def test_the_paths_of_the_configuration_are_filled_in_wherever_they_stand(tmp_path):
    (tmp_path / "own.yaml").write_text("run: ~/run\ndata: {root: $SCRATCH/market, stage_to: ~/$SLURM_TMPDIR}\n")
    found = config.load(str(tmp_path / "own.yaml"), ["train.init=~/weights"])
    assert (found.run, found.data.root) == ("/home/anna/run", "/scratch/anna/market")
    assert (found.data.stage_to, found.train.init) == ("/home/anna/$SLURM_TMPDIR", "/home/anna/weights")  # the node's
    for key in ("run", "data.root", "train.init"):
        with pytest.raises(UserError, match=f"{key}=\\$UNSET/x: the variable UNSET"):
            config.load("demo", [f"{key}=$UNSET/x"])
    with pytest.raises(UserError, match="run= is empty"):
        config.load("demo", ["run="])


@pytest.mark.parametrize(
    "program", ["shards/build.py synthetic --out", "-m mscgan.evaluate --run", "-m mscgan.pictures"]
)
def test_programs_refuse_a_path_with_an_unset_variable(program):
    done = subprocess.run([sys.executable, *program.split(), "$UNSET/x"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "the variable UNSET is not set" in done.stderr
