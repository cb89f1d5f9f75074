"""Presets, key=value changes, and what is said to values that cannot be."""

import subprocess
import sys

import pytest

from mscgan import config
from mscgan.errors import UserError


def test_the_presets_have_the_papers_sizes_and_pg2s_weights():
    market, fashion = config.load("market1501"), config.load("deepfashion")
    assert (market.data.height, market.data.width, market.loss.lambda_L1_2) == (128, 64, 10)
    assert (fashion.data.height, fashion.data.width, fashion.loss.lambda_L1_2) == (256, 256, 50)
    for preset in (market, fashion):
        assert (preset.train.lr, preset.train.betas, preset.train.batch) == (1e-4, [0.5, 0.9], 16)
        assert (preset.train.images_I, preset.train.images_II) == (22_000 * 16, 14_000 * 16)
        assert (preset.model.base, preset.model.discriminators) == (128, 2)


def test_changes_win_over_the_preset_and_come_back_from_the_saved_file(tmp_path):
    resolved = config.load("market1501", ["train.lr=2e-4", "loss.lambda_D=[0.7,0.3]", "data.root=/data/market"])
    assert (resolved.train.lr, resolved.loss.lambda_D, resolved.data.root) == (2e-4, [0.7, 0.3], "/data/market")
    config.save(resolved, tmp_path / "config.yaml")
    assert config.load(str(tmp_path / "config.yaml")) == resolved


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.learning_rate=1", "learning_rate"),
        ("train.batch=many", "train.batch"),
        ("train.batch", "not of the form key=value"),
        ("train.batch=0", "train.batch is 0; it must be above 0"),
        ("train.images_I=-1", "must not be negative"),
        ("train.precision=fp8", "choose one of bf16, fp16, fp32"),
        ("model.discriminators=4", "choose one of 1, 2, 3"),
        ("data.height=96", "power of two"),
        ("data.width=32", "a width of the height or half of it"),
        ("loss.lambda_D=[1]", "1 weights for model.discriminators=2"),
        ("train.lr=nan", "train.lr is nan; it must be above 0"),
        ("loss.lambda_bg_1=-1", "must not be negative"),
        ("data.flip=1.5", "a probability"),
        ("train.betas=[0.5]", "give two numbers"),
        ("train.betas=[0.5,1]", "below 1"),
        ("train.betas={a: 1}", "incompatible"),
        ("run='a", "line 1, column 1"),
    ],
)
def test_a_value_that_cannot_be_is_refused_in_one_line(override, said):
    with pytest.raises(UserError) as refused:
        config.load("market1501", [override])
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_an_unknown_preset_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match="deepfashion, demo, market1501"):
        config.load("market")


@pytest.mark.parametrize(
    ("written", "said"), [(b"- a\n", "incompatible"), (b"\xff", "decode"), (b"run: [\n", "line 2, column 1")]
)
def test_a_file_that_is_no_configuration_is_refused_in_one_line(written, said, tmp_path):
    (tmp_path / "mine.yaml").write_bytes(written)
    with pytest.raises(UserError) as refused:
        config.load(str(tmp_path / "mine.yaml"))
    assert "mine.yaml: " in str(refused.value) and said in str(refused.value) and "\n" not in str(refused.value)


def test_loading_a_configuration_costs_no_torch():
    program = "import sys, mscgan.config; mscgan.config.load('demo'); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
