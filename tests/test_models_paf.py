"""The family paf: what its step learns of a pair. (What every family must do is in test_models.py.)"""

import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from mscgan import config
from mscgan.models import paf
from mscgan.paf.network import PAF, as_input
from mscgan.pose import FLIP
from mscgan.prepare import Inputs
from tests.model_rank import config as small
from tests.model_rank import inputs
from tests.ranks import ROOT
from tests.test_models import NotingEngine
from tests.test_paf_estimate import standing


class Answering(NotingEngine):
    """Gives the same maps to every image, and notes what it was shown."""

    def __init__(self, maps: torch.Tensor):
        super().__init__(None)
        self.maps = maps

    def __call__(self, x):
        self.shown = x
        return self.maps.expand(-1, len(x), -1, -1, -1)


def loss(batch: Inputs, maps: torch.Tensor) -> tuple[float, dict[str, float], torch.Tensor]:
    engine = Answering(maps)
    terms = paf.step("pose", {"PAF": engine}, None, [batch], small("paf").options())
    return engine.losses[0], {name: term.item() for name, term in terms.items()}, engine.shown


def test_the_loss_is_a_sum_over_stages_of_means_with_the_fields_weighed():
    batch = inputs(small("paf"), 0)
    zeros = torch.zeros(1, 1, 57, 8, 8)
    whole, terms, _ = loss(batch, zeros)
    assert whole == pytest.approx(3 * terms["paf"] + terms["heat"])
    _, twice, _ = loss(batch, torch.cat([zeros, zeros]))
    assert twice == pytest.approx({name: 2 * term for name, term in terms.items()})
    _, off, _ = loss(batch, zeros + torch.eye(57)[56].view(1, 1, 57, 1, 1))  # the background, 1 everywhere
    assert off["paf"] == terms["paf"] and off["heat"] < terms["heat"]


def test_both_images_of_a_pair_are_shown_mirrored_where_their_keypoints_are():
    batch = inputs(small("paf"), 0)
    _, _, shown = loss(batch, torch.zeros(1, 1, 57, 8, 8))
    torch.testing.assert_close(shown, as_input(torch.cat([batch.x, batch.y]), 2))
    assert (batch.x_keypoints[0, 6] == -1).all() and FLIP[6] == 3  # joint 3 is missing, and pair 0 is mirrored
    assert (batch.x_keypoints[1, 3] == -1).all()


def test_what_is_answered_for_a_missing_joint_changes_no_loss_unless_missing_is_absent():
    batch = inputs(small("paf"), 0)
    batch = replace(batch, given_x_keypoints=batch.given_x_keypoints.clone(), flip=torch.tensor([False, False]))
    batch.given_x_keypoints[:], batch.given_y_keypoints[:] = -1, -1
    batch.given_x_keypoints[:, 0] = batch.given_y_keypoints[:, 0] = 9.0  # the nose alone is known
    zeros, wrist = torch.zeros(1, 1, 57, 8, 8), torch.eye(57)[38 + 4].view(1, 1, 57, 1, 1)
    assert loss(batch, zeros)[0] == loss(batch, zeros + wrist)[0]
    nose = torch.eye(57)[38].view(1, 1, 57, 1, 1)
    assert loss(batch, zeros)[0] != loss(batch, zeros + nose)[0]
    engine, options = Answering(zeros + wrist), replace(small("paf").options(), missing="absent")
    paf.step("pose", {"PAF": engine}, None, [batch], options)
    assert engine.losses[0] > loss(batch, zeros)[0] + 0.01


def test_the_pictures_show_the_person_that_is_found():
    """One that stands still, whatever the image: drawn on it, in place."""

    class Still(PAF):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return standing(x)

    settings = config.load("demo", ["family=paf", "data.height=128", "data.width=64"])
    image = torch.full((2, 128, 64, 3), 200, dtype=torch.uint8)
    made = paf.images(
        "pose",
        {"PAF": Still(1, 8, 8, enlarge=3)},
        Inputs(image, None, None, None, torch.zeros(2).bool(), settings.data),
    )
    glow, drawn = made["confidence maps"][0], made["pose found"][0]
    assert glow[:, 28, 32].max() > 0.5 and glow[:, 120, 5].max() < -0.9  # the neck; a corner
    dark = 200 // 2 / 127.5 - 1
    assert (drawn[:, 120, 5] - dark).abs().max() < 0.01 and (drawn[:, 28, 32] - dark).abs().max() > 0.2


@pytest.mark.slow
def test_minutes_of_training_find_seven_joints_of_ten_of_people_not_seen_before(tmp_path):
    shards, run = tmp_path / "shards", tmp_path / "run"
    people = "--people 300 --views 8 --poses everyday --turn 120 --height 64 --width 32".split()
    for command in (
        ["shards/build.py", "synthetic", "--out", shards, *people],
        ["-m", "mscgan.train", "--config", "demo", "family=paf", f"data.root={shards}", f"run={run}"],
    ):
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
    command = [sys.executable, "-m", "mscgan.poses", "--estimator", run, "--score", shards]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found, guessed = (float(number) for number in re.findall(r": (\d\.\d{3})", printed))
    assert found >= 0.7 and found > guessed + 0.05, printed
