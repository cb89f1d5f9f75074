"""Stages, and which changes of them a checkpoint bears. The run here: I to 100 pairs, II to 160."""

import subprocess
import sys

import pytest

from mscgan import schedule
from mscgan.errors import UserError
from mscgan.keys import Config
from mscgan.schedule import Stage
from tests.ranks import ROOT


def asked(**pairs) -> Config:
    config = Config()
    config.train.pairs = pairs
    return config


def facts(stage: str, pairs: int) -> dict:
    began, ends = {"I": (0, 100), "II": (100, 160)}[stage]
    return {"stage": stage, "pairs": pairs, "began": began, "ends": ends, "made_with": schedule.made_with(asked())}


def test_stages_come_in_the_familys_order_and_those_without_pairs_are_left_out():
    stages = schedule.schedule("mscgan", {"joint": 5, "I": 10, "II": 0})
    assert stages == [Stage("I", 0, 10), Stage("joint", 10, 15)]
    with pytest.raises(UserError, match="nothing to train"):
        schedule.schedule("pg2", {"I": 0})


def test_a_run_on_anothers_stage_begins_behind_its_last_step():
    config = asked(I=100, II=60, joint=30)
    assert schedule.beginning(config) == (0, 0, 0)
    config.train.batch = 8
    config.train.init_after = "I"
    assert schedule.beginning(config) == (104, 13, 104)
    config.train.init_after = "II"  # from the step that ends at 104 to the one that ends at 160
    assert schedule.beginning(config) == (160, 20, 56)
    for pairs, stage in (({"II": 60}, "I"), ({"I": 100}, "I"), ({"I": 100, "II": 60}, "II")):
        config.train.pairs, config.train.init_after = pairs, stage
        with pytest.raises(UserError, match=f"train.init_after={stage}: let train.pairs.{stage} be"):
            schedule.beginning(config)


@pytest.mark.parametrize(
    ("stage", "pairs", "now"),
    [
        ("I", 40, {"I": 100, "II": 60}),  # as it was
        ("I", 40, {"I": 300, "II": 0}),
        ("I", 40, {"I": 40, "II": 60}),  # shorter, and no shorter than it is by now
        ("I", 100, {"I": 150, "II": 60}),
        ("I", 104, {"I": 100, "II": 60}),  # its last step went beyond the end
        ("II", 120, {"I": 100, "II": 20}),
        ("II", 160, {"I": 100, "II": 90}),
        ("II", 120, {"I": 100, "II": 60, "joint": 30}),
    ],
)
def test_what_lies_ahead_may_change(stage, pairs, now):
    schedule.check(asked(**now), facts(stage, pairs), "C")


@pytest.mark.parametrize(
    ("stage", "pairs", "now", "said"),
    [
        ("II", 120, {"I": 140, "II": 60}, "from 140 to 200"),  # it would go back to stage I
        ("II", 120, {"I": 110, "II": 60}, "from 110 to 170"),  # a stage that is over, longer
        ("II", 120, {"I": 40, "II": 60}, "from 40 to 100"),  # and shorter: II would be over
        ("II", 120, {"I": 160}, "would have no pairs"),
        ("II", 120, {"I": 100, "II": 10}, "from 100 to 110"),  # less than it has had
        ("I", 80, {"I": 40, "II": 60}, "from 0 to 40"),
        ("I", 80, {"II": 60}, "would have no pairs"),
    ],
)
def test_what_has_passed_may_not(stage, pairs, now, said):
    with pytest.raises(UserError) as refused:
        schedule.check(asked(**now), facts(stage, pairs), "C")
    text = str(refused.value)
    assert text.startswith(f"C is in stage {stage}, which with the train.pairs given now") and said in text
    stays, least = (100, 20) if stage == "II" else (0, 80)
    assert f"({stays} in all), let train.pairs.{stage} be {least} or more" in text


@pytest.mark.parametrize("key", [*schedule.MEANING, "mscgan.lambda_bg_1", "mscgan.base", "shards"])
def test_what_a_run_is_changes_with_leave_only(key):
    config = asked(I=100, II=60)
    config.train.precision = "fp32"
    found = facts("I", 40) | {"made_with": schedule.made_with(config) | {"shards": "these"}}
    assert schedule.check(config, found, "C", "these") == []
    found["made_with"][key] = "another"
    with pytest.raises(UserError, match=f"C was made with {key} another, now it is .*allow=.{key}. to go on"):
        schedule.check(config, found, "C", "these")
    config.allow = [key]
    (change,) = schedule.check(config, found, "C", "these")
    assert change.startswith(f"{key} another, now it is ")


def test_leave_for_one_key_is_none_for_another():
    found = facts("I", 40)
    found["made_with"] |= {"train.lr": 3.0, "train.seed": 7}
    config = asked(I=100, II=60)
    config.allow = ["train.seed"]
    with pytest.raises(UserError, match="C was made with train.lr 3.0, now it is 0.0001; set it as it was"):
        schedule.check(config, found, "C")


def test_where_precision_is_left_to_the_machine_the_run_keeps_its_own():
    found = facts("I", 40)
    found["made_with"]["train.precision"] = "bf16"
    assert schedule.check(asked(I=100, II=60), found, "C") == []


def test_it_is_complete_at_the_end_of_the_last_stage():
    assert not schedule.complete(asked(I=100, II=60), {})
    assert not schedule.complete(asked(I=100, II=60), facts("II", 159))
    assert schedule.complete(asked(I=100, II=60), facts("II", 160))


def test_it_costs_no_torch():
    check = "import sys, mscgan.schedule; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT).returncode == 0


def test_what_comes_after_a_run_that_finds_poses_is_to_score_and_use_it():
    config = Config(run="runs/a b", family="paf")
    config.data.root = "shards"
    assert schedule.ending(config, "done").splitlines() == [
        "done; next:",
        "    python -m mscgan.poses --estimator 'runs/a b' --score shards",
        "    python -m mscgan.poses --estimator 'runs/a b' --image a.jpg --picture pose.png",
        "    python -m mscgan.report 'runs/a b'    # writes 'runs/a b/report.html'",
    ]
