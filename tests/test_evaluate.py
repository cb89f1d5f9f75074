"""Evaluate: every score against a plain loop over the pairs, and the figures around them."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import structural_similarity

from mscgan import evaluate as module
from mscgan import trained
from mscgan.data.shards import ShardSet
from mscgan.errors import UserError, run
from mscgan.evaluate import evaluate, format_table
from mscgan.pose import body_mask
from tests.run_factory import write_run


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The folder of an untrained run of the demo's size; its shards lie beside it."""
    return write_run(tmp_path_factory.mktemp("evaluate"), persons=4, views=3)


@pytest.fixture(scope="module")
def result(made) -> dict:
    return evaluate(made)


def plain_scores(made: Path) -> dict[str, list[dict[str, float]]]:
    """The scores of each pair, one at a time, by the words of the protocols."""
    model = trained.load(made)
    shards = ShardSet(model.config.data.root, "test")
    scores = {"copy_source": [], "stage_I": [], "stage_II": []}
    for i, j in shards.pairs:
        x, y = (np.array(Image.open(io.BytesIO(shards.read(k)))) for k in (i, j))
        keypoints = torch.from_numpy(shards.keypoints[j : j + 1])
        mask = body_mask(keypoints, 64, 32, "pg2", radius=2.0)[0, 0].numpy().astype(np.uint8)[..., None]
        y1, y_hat = (
            np.clip(np.rint((t[0].cpu().double().numpy() + 1) * 127.5), 0, 255).astype(np.uint8).transpose(1, 2, 0)
            for t in model.images(torch.from_numpy(x)[None], keypoints).values()
        )
        for method, made_image in (("copy_source", x), ("stage_I", y1), ("stage_II", y_hat)):
            row = {"L1": np.abs(made_image / 127.5 - y / 127.5).mean()}
            for name, a, b in (("ssim", made_image, y), ("mask_ssim", made_image * mask, y * mask)):
                row[f"{name}_A"] = structural_similarity(a, b, channel_axis=-1)
                row[f"{name}_B"] = structural_similarity(
                    a, b, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                    data_range=a.max() - a.min(),
                )  # fmt: skip
            scores[method].append(row)
    return scores


def test_every_mean_is_that_of_a_plain_loop(made, result):
    plain = plain_scores(made)
    assert result["scores"].keys() == plain.keys()
    for method, rows in plain.items():
        assert result["scores"][method].keys() == rows[0].keys()
        for score in rows[0]:
            # One pixel that rounds the other way in a batch moves the mean by less than this.
            expected = np.mean([row[score] for row in rows])
            assert result["scores"][method][score]["mean"] == pytest.approx(expected, abs=1e-5), (method, score)


def test_the_result_names_what_was_scored(made, result):
    assert (result["split"], result["dataset"]) == ("test", "toy")
    assert (result["pairs"], result["pairs_in_split"], result["people"]) == (24, 24, 4)
    sums = subprocess.run(
        ["sha256sum", made / "config.yaml", made / "generator.safetensors"], capture_output=True, text=True, check=True
    )
    config, generator = (line.split()[0] for line in sums.stdout.splitlines())
    assert (config, generator) == (result["config_sha256"], result["generator_sha256"])


def test_two_evaluations_are_the_same_to_the_last_digit(made, result):
    assert evaluate(made) == result


def test_several_processes_give_the_same_table(made, result, monkeypatch):
    monkeypatch.setattr(module, "WORTH_PROCESSES", 1)
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda process: {0, 1})
    assert evaluate(made) == result


def test_a_part_of_the_pairs_and_another_split_can_be_scored(made):
    part = evaluate(made, "train", pairs=5)
    assert (part["split"], part["pairs"], part["pairs_in_split"]) == ("train", 5, 24)
    with pytest.raises(UserError, match="25 pairs asked for"):
        evaluate(made, pairs=25)


def test_intervals_are_those_of_means_over_people():
    # 200 people of 5 pairs each; a person's pairs score alike, so the mean has the error of 200 values, not of 1000.
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(200), 5)
    table = np.tile(rng.normal(0.5, 0.1, 200)[people][:, None], (1, 5))
    cell = module._summary(table, people)["L1"]
    error = table[::5, 0].std(ddof=1) / np.sqrt(200)
    assert cell["mean"] == pytest.approx(table[:, 0].mean())
    assert cell["high"] - cell["low"] == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert cell["low"] < cell["mean"] < cell["high"]


def test_one_person_has_no_interval():
    summary = module._summary(np.full((4, 5), 0.25), np.array(["a"] * 4))
    assert summary["ssim_A"] == {"mean": 0.25, "low": None, "high": None}
    texts = {"dataset": "toy", "split": "test", "pairs": 4, "pairs_in_split": 4, "people": 1}
    assert "[" not in format_table(texts | {"scores": {"stage_II": summary}}).splitlines()[-1]


def test_the_command_prints_the_table_and_writes_the_json(made):
    done = subprocess.run(
        [sys.executable, "-m", "mscgan.evaluate", "--run", str(made), "--pairs", "6"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    written = json.loads((made / "evaluation.json").read_text())
    assert written["pairs"] == 6
    assert done.stdout == f"{format_table(written)}\n{made / 'evaluation.json'}\n"
    *_, copied, _, second, _ = done.stdout.splitlines()
    assert copied.startswith("copy source ") and second.startswith("stage II ")
    assert f"{written['scores']['stage_II']['L1']['mean']:.3f} [" in second
    assert not list(made.glob(".*"))


def test_a_missing_run_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["evaluate", "--run", str(tmp_path / "nothing")])
    with pytest.raises(SystemExit) as left:
        run(module.main)
    said = capsys.readouterr()
    assert left.value.code == 2 and said.out == ""
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
