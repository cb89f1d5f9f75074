"""The beginning of `make soak` (tests/soak.py), and that it can fail."""

import random

import pytest
import torch
from safetensors.torch import save_file

from tests import soak
from tests.soak import Reference, Trial, wrong

SECONDS = 25
HARMLESS = {"faults", "trials", "checkpoints passed over"}


def test_faults_change_no_bit(tmp_path, monkeypatch, capsys):
    """The same faults each time, as many as fit; `make soak` is where others are looked for."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    counts = soak.soak(10_000, 0, tmp_path, SECONDS)
    said = capsys.readouterr().out
    assert counts.keys() <= HARMLESS, said
    assert counts["faults"] >= 1


@pytest.fixture
def ended(tmp_path) -> Trial:
    """A trial whose run ended well."""
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "metrics.jsonl").write_text('{"pairs": 12, "L1_1": 0.5}\n{"pairs": 24, "L1_1": 0.4}\n')
    save_file({"w": torch.ones(2)}, run / "generator.safetensors")
    trial = Trial(0, random.Random(0), run, tmp_path, "ddp")
    trial.codes, trial.said = [[-9, 0], [0, 0]], "\0\0"
    return trial


def test_a_run_that_ended_as_the_undisturbed_one_is_not_wrong(ended):
    assert wrong(ended, soak.left_by(ended.run)) == []


@pytest.mark.parametrize("wrongs", ["weights", "curve", "pairs", "left over", "lost", "traceback"])
def test_what_is_wrong_is_found(ended, wrongs):
    reference = soak.left_by(ended.run)
    said = {
        "weights": "other weights", "curve": "another curve", "pairs": "pairs lost or repeated",
        "left over": "left over: partial-pairs-000000012", "lost": "the run was lost",
        "traceback": "a traceback for a mistake",
    }[wrongs]  # fmt: skip
    if wrongs == "weights":
        reference = Reference({"w": torch.tensor([1.0, 1.0 + 2**-23])}, reference.curve)
    elif wrongs == "curve":
        reference = Reference(reference.weights, [*reference.curve[:-1], {"pairs": 24, "L1_1": 0.4000001}])
    elif wrongs == "pairs":
        reference = Reference(reference.weights, reference.curve[:-1])
    elif wrongs == "left over":
        (ended.run / "checkpoints/partial-pairs-000000012").mkdir()
    elif wrongs == "lost":
        ended.codes.append([0, 1])
    else:
        ended.codes[0], ended.said = [2, 2], "Traceback (most recent call last)\0\0"
    assert wrong(ended, reference) == [said]
