"""Evaluate: every score against a plain loop over the pairs, and the figures around them."""

import io
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
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
    scores, targets = {"copy_source": [], "stage_I": [], "stage_II": []}, []
    for i, j in shards.pairs:
        x, y = (np.array(Image.open(io.BytesIO(shards.read(k)))) for k in (i, j))
        keypoints = torch.from_numpy(shards.keypoints[j : j + 1])
        mask = body_mask(keypoints, 64, 32, "pg2", radius=2.0)[0, 0].numpy().astype(np.uint8)[..., None]
        y1, y_hat = (
            np.clip(np.rint((t[0].cpu().double().numpy() + 1) * 127.5), 0, 255).astype(np.uint8).transpose(1, 2, 0)
            for t in model.images(torch.from_numpy(x)[None], keypoints).values()
        )
        for method, made_image in (("copy_source", x), ("stage_I", y1), ("stage_II", y_hat)):
            row = {"L1": np.abs(made_image / 127.5 - y / 127.5).mean(), "sharpness": variance_of_laplacian(made_image)}
            targets.append(variance_of_laplacian(y))
            for name, a, b in (("ssim", made_image, y), ("mask_ssim", made_image * mask, y * mask)):
                row[f"{name}_A"] = structural_similarity(a, b, channel_axis=-1)
                row[f"{name}_B"] = structural_similarity(
                    a, b, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                    data_range=a.max() - a.min(),
                )  # fmt: skip
            scores[method].append(row)
    for row in itertools.chain(*scores.values()):
        row["sharpness"] /= np.mean(targets)
    return scores


def variance_of_laplacian(image: np.ndarray) -> float:
    grey = image / 255 @ [0.2125, 0.7154, 0.0721]
    return scipy.ndimage.laplace(grey, mode="nearest").var()


def test_every_mean_is_that_of_a_plain_loop(made, result):
    plain = plain_scores(made)
    assert result["scores"].keys() == plain.keys()
    for method, rows in plain.items():
        assert result["scores"][method].keys() == rows[0].keys()
        for score in rows[0]:
            # One pixel that rounds the other way in a batch moves the mean by less than this.
            expected = np.mean([row[score] for row in rows])
            found = result["scores"][method][score]["mean"]
            assert found == pytest.approx(expected, abs=1e-5, rel=3e-5), (method, score)


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
    table = np.tile(rng.normal(0.5, 0.1, 200)[people][:, None], (1, 6))
    cell = module._summary(table, people)["L1"]
    error = table[::5, 0].std(ddof=1) / np.sqrt(200)
    assert cell["mean"] == pytest.approx(table[:, 0].mean())
    assert cell["high"] - cell["low"] == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert cell["low"] < cell["mean"] < cell["high"]


def test_one_person_has_no_interval():
    summary = module._summary(np.full((4, 6), 0.25), np.array(["a"] * 4))
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
    written = json.loads((made / "evaluation-6-pairs.json").read_text())
    assert written["pairs"] == 6
    assert done.stdout == f"{format_table(written)}\n{made / 'evaluation-6-pairs.json'}\n"
    *_, copied, _, second, _ = done.stdout.splitlines()
    assert copied.startswith("copy source ") and second.startswith("stage II ")
    assert f"{written['scores']['stage_II']['L1']['mean']:.3f} [" in second
    assert not list(made.glob(".*"))


def exit_code(monkeypatch, *words: object) -> int:
    """Of the command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        run(module.main)
    return left.value.code or 0


def test_each_kind_of_evaluation_has_its_file_and_a_part_never_replaces_the_whole(tmp_path, monkeypatch):
    made = write_run(tmp_path, persons=2, views=2)
    moved = shutil.copytree(tmp_path / "shards", tmp_path / "moved")
    expected = {
        "evaluation.json": ([], 4, "shards"),
        "evaluation-3-pairs.json": (["--pairs", 3], 3, "shards"),
        "evaluation-train.json": (["--split", "train", "--pairs", 4], 4, "shards"),
        "evaluation-moved.json": (["--data", moved], 4, "moved"),
        "evaluation-train-moved-2-pairs.json": (["--split", "train", "--pairs", 2, "--data", moved], 2, "moved"),
        "mine/scores.json": (["--pairs", 2, "--out", made / "mine/scores.json"], 2, "shards"),
    }
    for words, _, _ in expected.values():
        assert exit_code(monkeypatch, "--run", made, *words) == 0
    found = {str(path.relative_to(made)) for path in made.rglob("*.json")}
    assert found == set(expected)
    for name, (_, pairs, shards) in expected.items():
        written = json.loads((made / name).read_text())
        assert (written["pairs"], written["shards"]) == (pairs, str(tmp_path / shards))
        assert written["pairs_chosen"] == ("all" if pairs == 4 else "spread evenly over the split's table")


def test_what_cannot_be_written_was_printed_before(tmp_path, monkeypatch, capsys):
    made = write_run(tmp_path, persons=1, views=2)
    (made / "evaluation.json").mkdir()  # nobody, not even root, can write a file of that name
    assert exit_code(monkeypatch, "--run", made) == 2
    said = capsys.readouterr()
    assert said.out.splitlines()[-1].startswith("stage II ")
    assert said.err.startswith(f"error: cannot write {made}/evaluation.json (") and said.err.count("\n") == 1
    assert said.err.endswith("give another file with --out\n")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--run", "{made}/../rum"], "did you mean {made}/../run?"),
        (["--run", "nothing/at/all"], "no run folder 'nothing/at/all'; give the folder of a run"),
        (["--run", "{made}", "--data", "{made}/../shardz"], "did you mean {made}/../shards?"),
        (["--run", "{made}", "--pairs", "99"], "99 pairs asked for"),
        (["--run", "{made}", "--out", "{made}"], "is a folder; give a file with --out"),
        (["--run", "{made}", "--out", "{made}/config.yaml/a.json"], "config.yaml is no folder"),
    ],
)
def test_a_mistake_is_one_line_before_the_networks_are_built(made, words, reason, monkeypatch, capsys):
    monkeypatch.setattr(trained, "load", lambda folder: pytest.fail("the networks were built"))
    assert exit_code(monkeypatch, *(word.format(made=made) for word in words)) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1
    assert reason.format(made=made) in said.err
