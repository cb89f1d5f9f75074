"""What is refused before the work."""

import importlib
import os
import sys

import pytest
import torch
from safetensors.torch import save_file

from mscgan import generate
from mscgan.checks import beside, check_place, check_trained, check_weights
from mscgan.errors import UserError
from tests.run_factory import write_run


def test_neighbours_of_a_like_name_are_named_if_they_are_of_the_kind(tmp_path):
    for name in ("market", "market-2", "fashion"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").touch()
    (tmp_path / "markets").mkdir()  # no run
    found = beside(tmp_path / "markte", "config.yaml")
    assert found == f"did you mean {tmp_path}/market or {tmp_path}/market-2?"
    assert beside(tmp_path / "xyz", "config.yaml") == beside(tmp_path / "no/market", "config.yaml") == ""


def test_a_run_needs_its_configuration_and_its_weights(tmp_path):
    with pytest.raises(UserError, match="no run folder"):
        check_trained(tmp_path / "run")
    for name in ("config.yaml", "generator.safetensors"):
        with pytest.raises(UserError, match=f"has no {name}"):
            check_trained(tmp_path)
        (tmp_path / name).touch()
    check_trained(tmp_path)


def test_a_place_may_be_a_new_folder_but_none_that_one_may_not_write_to(tmp_path, monkeypatch):
    check_place(tmp_path / "new/folder/a.json", "--out")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(UserError, match=rf"no permission to write to {tmp_path}\); give another file with --out"):
        check_place(tmp_path / "new/folder/a.json", "--out")


def test_weights_are_a_safetensors_file_that_can_be_read(tmp_path):
    save_file({"G1.weight": torch.zeros(2)}, tmp_path / "whole")
    check_weights(tmp_path / "whole")
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:-1])
    for name in ("cut", "none", "."):
        with pytest.raises(UserError, match=rf"train.init={tmp_path}.*; give a run's generator.safetensors"):
            check_weights(tmp_path / name)


def test_weights_for_a_run_on_anothers_stage_must_be_of_that_stages_end(tmp_path):
    save_file({"G1.weight": torch.zeros(2)}, tmp_path / "I", metadata={"stage": "I:96"})
    save_file({"G1.weight": torch.zeros(2)}, tmp_path / "old", metadata={"stage": "I"})
    check_weights(tmp_path / "I", "I", 96)
    for name, stage, seen, found in (("I", "I", 104, "96 pairs of stage I"), ("I", "II", 96, "96 pairs of stage I"),
                                     ("old", "I", 96, "an unknown number of pairs of stage I")):  # fmt: skip
        with pytest.raises(UserError, match=f"was made after {found}, and train.init_after={stage} .* {seen} of"):
            check_weights(tmp_path / name, stage, seen)


@pytest.mark.parametrize("command", ["evaluate", "generate"])
def test_a_run_that_finds_poses_makes_no_images_and_its_command_is_named(command, tmp_path, monkeypatch):
    run = write_run(tmp_path, 2, 2, "paf", "pose")
    wanted = ["--image", "a.png", "--keypoints", "[]"] if command == "generate" else []
    monkeypatch.setattr(sys, "argv", [command, "--run", str(run), *wanted])
    with pytest.raises(UserError, match=r"makes no images but finds poses: `python -m mscgan.poses --estimator"):
        importlib.import_module(f"mscgan.{command}").main()
    assert not list(run.glob("evaluation*"))


def test_a_run_that_finds_poses_has_its_grid_of_pairs(tmp_path, monkeypatch):
    run = write_run(tmp_path, 2, 2, "paf", "pose")
    monkeypatch.setattr(sys, "argv", ["generate", "--run", str(run), "--pairs", "2"])
    generate.main()
    assert (run / "pairs-test.png").exists()
