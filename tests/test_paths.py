"""mscgan/paths.py, and that every path of the configuration and of every program's options goes through it."""

import argparse
import ast
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


@pytest.mark.parametrize("option", ["--run", "--data", "--estimator", "--out"])
def test_programs_refuse_a_path_with_an_unset_variable(option, monkeypatch, capsys):
    from mscgan import evaluate

    monkeypatch.setattr(sys, "argv", ["evaluate", option, "$UNSET/x"])
    with pytest.raises(SystemExit, match="2"):
        evaluate.main()
    assert f"{option}: '$UNSET/x': the variable UNSET is not set" in capsys.readouterr().err


def test_an_empty_path_is_an_unset_variable_and_not_the_folder_one_stands_in():
    for read in (paths.a_path, paths.path_text):
        with pytest.raises(argparse.ArgumentTypeError, match="it is empty"):
            read("")
    assert (paths.a_path("~/x"), paths.path_text("$SCRATCH/x")) == (Path("/home/anna/x"), "/scratch/anna/x")
    assert paths.path_text("movenet") == "movenet"


EXPANDS = {"a_path", "path_text", "_a_pose"}
OF_A_PATH = {"DIR", "FILE", "CSV", "RUN", "CLONES", "SHARDS", "PAGE", "PHOTO", "POSE", "OUT", "OUT/RUN"}
NAMES_OF_PATHS = "run runs root folder out data image images estimator record picture shards annotations to".split()
# --config and --configs: mscgan/config.py expands them. images: a number. to: launch/stage_in.py, on the node.
ELSEWHERE = {("run_throughput.py", "--images"), ("stage_in.py", "to"), ("stage_together.py", "to")}


def test_every_option_that_is_a_path_is_read_by_the_same_rule():
    found = []
    for file in [file for part in ("mscgan", "shards", "benchmarks", "launch") for file in (ROOT / part).rglob("*.py")]:
        for call in ast.walk(ast.parse(file.read_text())):
            if not (isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "add_argument" and call.args):
                continue
            name, given = str(getattr(call.args[0], "value", "")), {key.arg: key.value for key in call.keywords}
            path = getattr(given.get("metavar"), "value", "") in OF_A_PATH or name.lstrip("-") in NAMES_OF_PATHS
            kind = getattr(given.get("type"), "id", "")
            if (path or kind == "Path") and (file.name, name) not in ELSEWHERE:
                found.append(name)
                assert kind in EXPANDS, f"{file.name}: {name} is a path, and not read by mscgan/paths.py"
    assert len(found) > 40, found


def test_a_pose_that_is_a_text_is_taken_as_it_came():
    from mscgan.generate import _a_pose

    assert _a_pose("~/pose.json") == "/home/anna/pose.json"
    for text in ("[[1, 2]]" + 300 * " ", ' {"a": "~/$UNSET"}'):
        assert _a_pose(text) == text
