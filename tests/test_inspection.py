"""`python -m mscgan.checkpoint`: what it says of a run, and that it changes nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mscgan import checkpoint
from mscgan.inspection import main
from tests.ranks import ROOT
from tests.test_checkpoint import flip, names, save


@pytest.fixture
def run(tmp_path) -> Path:
    for pairs in (8, 16, 24):
        save(tmp_path, pairs, keep=3, generator={"G.w": torch.full((2,), float(pairs))})
    return tmp_path


@pytest.fixture
def say(monkeypatch, capsys):
    def command(*words) -> tuple[int, list[str]]:
        monkeypatch.setattr(sys, "argv", ["checkpoint", *map(str, words)])
        code = main()
        return code, capsys.readouterr().out.splitlines()

    return command


def test_ls_names_each_and_what_is_damaged(run, say):
    (checkpoint.folder(run, 16) / "state.json").write_text("{")
    checkpoint.set_aside(checkpoint.folder(run, 8))
    code, lines = say("ls", run)
    assert code == 0 and [line.split()[0] for line in lines] == [
        "pairs-000000016", "pairs-000000024", "damaged-pairs-000000008",
    ]  # fmt: skip
    assert "DAMAGED: state.json is no document" in lines[0] and "stage II" in lines[1] and "in 2 files" in lines[1]


def test_verify_reads_every_byte_and_leaves_all_as_it_is(run, say):
    assert say("verify", run) == (0, [f"pairs-{pairs:09d}  as it was written" for pairs in (8, 16, 24)])
    flip(checkpoint.folder(run, 16) / "rank-00000.safetensors", -1)
    code, lines = say("verify", run)
    assert code == 1 and "pairs-000000016  DAMAGED: rank-00000.safetensors is not as it was" in lines[1]
    assert say("verify", run, 24)[0] == 0
    assert len(names(run)) == 3


def test_export_gives_a_verified_generator(run, say, tmp_path):
    assert say("export", run, "--to", tmp_path / "g.safetensors")[0] == 0
    assert load_file(tmp_path / "g.safetensors")["G.w"].tolist() == [24, 24]
    assert say("export", run, 8, "--to", tmp_path / "g.safetensors")[0] == 0
    assert load_file(tmp_path / "g.safetensors")["G.w"].tolist() == [8, 8]
    flip(checkpoint.folder(run, 24) / "generator.safetensors", -1)
    with pytest.raises(ValueError, match="is damaged .*export another"):
        say("export", run, "--to", tmp_path / "h.safetensors")
    assert not (tmp_path / "h.safetensors").exists()


def test_diff_says_what_differs_and_how_far(run, say):
    code, lines = say("diff", run, 8, 24)
    assert code == 0 and lines == [
        "pairs: 8 -> 24",
        "average.G.w: |difference| at most 16, on average 16",
        "w: |difference| at most 16, on average 16",
    ]
    assert say("diff", run, 8, 8) == (0, [])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ls", "{run}/nowhere"], "has no checkpoints"),
        (["verify", "{run}", "9"], "no checkpoint at 9 pairs; there are some at 8, 16, 24"),
        (["export", "{run}"], "export needs --to FILE"),
        (["diff", "{run}", "8"], "diff takes 2 checkpoints, and these are 1"),
    ],
)
def test_mistakes_are_one_line(run, words, said):
    command = [sys.executable, "-m", "mscgan.checkpoint", *(word.format(run=run) for word in words)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert ended.returncode == 2 and said in ended.stderr and ended.stderr.count("\n") == 1
