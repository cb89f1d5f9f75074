"""Evaluate: every score against a plain loop over the pairs, and the figures and files around them."""

import csv
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
from safetensors import safe_open
from safetensors.torch import save_file
from skimage.metrics import structural_similarity

from mscgan import chunks, dist, evaluation, trained
from mscgan import evaluate as module
from mscgan.data.shards import ShardSet
from mscgan.errors import UserError, run
from mscgan.evaluate import Chosen, evaluate
from mscgan.evaluation import format_table
from mscgan.pose import body_mask
from mscgan.scoring import score_pixels
from mscgan.trained import BATCH
from tests.ranks import exit_codes, start_ranks
from tests.run_factory import write_run

OF_PIXELS = ["ssim_A", "ssim_B", "mask_ssim_A", "mask_ssim_A_target", "mask_ssim_B", "l1", "sharpness"]


@pytest.fixture(scope="module", autouse=True)
def no_weights(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MSCGAN_WEIGHTS", str(tmp_path_factory.getbasetemp() / "no-weights"))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The folder of an untrained run of the demo's size; its shards lie beside it."""
    return write_run(tmp_path_factory.mktemp("evaluate"), persons=6, views=3)


@pytest.fixture(scope="module")
def result(made) -> dict:
    return evaluate(made, Chosen())


def of_pairs(file: Path) -> dict[str, list[float]]:
    """{"METHOD/SCORE": its column} of a CSV."""
    found: dict[str, list[float]] = {}
    with file.open() as lines:
        for line in csv.DictReader(lines):
            for score in OF_PIXELS if line["method"] != "real" else ["sharpness"]:
                found.setdefault(f"{line['method']}/{score}", []).append(float(line[score]))
    return found


def plain_scores(made: Path) -> dict[str, list[dict[str, float]]]:
    """The scores of each pair, one at a time, by the words of the protocols."""
    model = trained.load(made)
    shards = ShardSet(model.config.data.root, "test")
    train = ShardSet(model.config.data.root, "train")
    mean = np.rint(np.mean([np.array(Image.open(io.BytesIO(train.read(k)))) for k in range(len(train))], 0))
    scores, targets = {"copy_source": [], "mean_image": [], "stage_I": [], "stage_II": []}, []
    for i, j in shards.pairs:
        x, y = (np.array(Image.open(io.BytesIO(shards.read(k)))) for k in (i, j))
        poses = torch.from_numpy(shards.keypoints[[i, j]])
        (of_source, of_target), (_, of_target_B) = (
            body_mask(poses, 64, 32, kind, radius=4.0)[:, 0].numpy().astype(np.uint8)[..., None]
            for kind in ("pg2", "pose-gan")
        )
        y1, y_hat = (
            np.clip(np.rint((t[0].cpu().double().numpy() + 1) * 127.5), 0, 255).astype(np.uint8).transpose(1, 2, 0)
            for t in model.images(torch.from_numpy(x)[None], poses[1:]).values()
        )
        images = (("copy_source", x), ("mean_image", mean.astype(np.uint8)), ("stage_I", y1), ("stage_II", y_hat))
        for method, image in images:
            row = {"l1": np.abs(image / 127.5 - y / 127.5).mean(), "sharpness": variance_of_laplacian(image)}
            for score, mask in (("ssim_A", 1), ("mask_ssim_A", of_source), ("mask_ssim_A_target", of_target)):
                row[score] = structural_similarity(image * mask, y * mask, channel_axis=-1, data_range=255)
            for score, mask in (("ssim_B", np.uint8(1)), ("mask_ssim_B", of_target_B)):
                a, b = image * mask, y * mask
                row[score] = structural_similarity(
                    a, b, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                    data_range=float(a.max()) - float(a.min()),
                )  # fmt: skip
            scores[method].append(row)
        targets.append(variance_of_laplacian(y))
    for row in itertools.chain(*scores.values()):
        row["sharpness"] /= np.mean(targets)
    return scores


def variance_of_laplacian(image: np.ndarray) -> float:
    grey = image / 255 @ [0.2125, 0.7154, 0.0721]
    return scipy.ndimage.laplace(grey, mode="nearest").var()


def test_every_value_and_every_line_of_the_csv_is_that_of_a_plain_loop(made, result):
    plain, found, lines = plain_scores(made), dict(result["scores"]), of_pairs(made / "evaluation-pairs.csv")
    assert found.pop("real") == {"sharpness": {"value": 1.0, "low": 1.0, "high": 1.0, "pairs": 36}}
    assert list(found) == list(plain)
    for method, rows in plain.items():
        assert list(found[method]) == OF_PIXELS
        for score in OF_PIXELS:
            # One pixel that rounds the other way in a batch moves a pair by less than this.
            expected = [row[score] for row in rows]
            assert lines[f"{method}/{score}"] == pytest.approx(expected, abs=1e-4, rel=3e-4), (method, score)
            assert found[method][score]["value"] == pytest.approx(np.mean(expected), abs=1e-5, rel=3e-5)


def test_baselines_are_scored_once_for_the_same_pairs_and_code(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    scored: list[str] = []

    def noted(batch, scores, device):
        scored.extend(batch.made)
        return score_pixels(batch, scores, device)

    monkeypatch.setattr(chunks, "score_pixels", noted)
    run = write_run(tmp_path, persons=3, views=2)
    first = evaluate(run, Chosen())
    assert {"copy_source", "mean_image", "stage_II"} <= set(scored)
    scored.clear()
    assert evaluate(run, Chosen(), tmp_path / "again.json") == first
    assert set(scored) == {"stage_I", "stage_II"}
    (kept,) = (tmp_path / "cache/mscgan/baselines").iterdir()
    (file,) = kept.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    scored.clear()
    assert evaluate(run, Chosen(), tmp_path / "damaged.json") == first and "copy_source" in scored
    for other in ({"scores": ("ssim_A", "l1")}, {"pairs": 3}, {"split": "train"}):
        scored.clear()
        evaluate(run, Chosen(**other))
        assert "copy_source" in scored, other
    monkeypatch.setattr(evaluation.Path, "read_bytes", lambda path: b"other code")
    scored.clear()
    assert evaluate(run, Chosen(), tmp_path / "code.json") == first and "copy_source" in scored


def test_the_difference_of_the_stages_is_that_of_their_values(result):
    found, (difference,) = result["scores"], result["differences"].values()
    for score in OF_PIXELS:
        cell = difference[score]
        assert cell["value"] == pytest.approx(found["stage_II"][score]["value"] - found["stage_I"][score]["value"])
        assert cell["low"] < cell["value"] < cell["high"]


def test_the_document_names_what_was_scored_and_what_was_left_out(made, result):
    document = result
    assert [document[key] for key in ("schema", "split", "dataset", "family")] == [2, "test", "toy", "mscgan"]
    assert [document[key] for key in ("pairs", "pairs_in_split", "people")] == [36, 36, 6]
    sums = subprocess.run(
        ["sha256sum", made / "config.yaml", made / "generator.safetensors"], capture_output=True, text=True, check=True
    )
    config, generator = (line.split()[0] for line in sums.stdout.splitlines())
    assert (config, generator) == (document["config_sha256"], document["generator_sha256"])
    assert "64x32" in document["left_out"]["ssim_gfla"] and "256x256" in document["left_out"]["ssim_B_padded"]
    assert set(document["protocols"]) == {*OF_PIXELS, "interval"}
    assert {"is", "is_any_order", "mask_is", "fid", "fid_gfla", "lpips"} < set(document["left_out"])
    assert "python -m mscgan.weights fetch inception-fid" in document["left_out"]["fid"]


def test_the_audit_counts_missing_joints(made, result):
    shards = ShardSet(trained.read_config(made).data.root, "test")
    # Of all ordered pairs sources and targets are the same images, so of one pair here: whose poses lack unlike many.
    absent = (shards.keypoints == -1).all(-1).mean(1)
    row = next(row for row, (i, j) in enumerate(shards.pairs) if absent[i] != absent[j])
    i, j = shards.pairs[row]
    missing = module._audit(shards, np.array([row]))["missing_joints"]
    assert missing == pytest.approx({"source": absent[i], "target": absent[j]})
    assert result["audit"]["images"] == 18


def test_the_table_has_a_line_a_score_and_a_reason_for_all_that_it_explains():
    cell = {"value": 0.25, "low": 0.2, "high": 0.3, "pairs": 8}
    document = {
        "dataset": "toy", "pairs": 9, "people": 3,
        "left_out": {"is": "no file", "fid": "no file", "lpips": "no package"},
        "scores": {
            "copy_source": {"ssim_A": cell, "l1": cell},
            "stage_I": {"ssim_A": cell, "l1": cell | {"low": None}},
        },
        "differences": {"stage_II - stage_I": {"l1": cell | {"pairs": 9}}},
        "audit": {
            "missing_joints": {"source": 0.201, "target": 0.3}, "without_pose": 2,
            "shared": {"items": 503, "of_items": 930, "pairs": 5000, "of_pairs": 8570},
        },
    }  # fmt: skip
    lines = format_table(document).splitlines()
    assert lines[0].startswith("toy: 9 pairs, 3 people;")
    assert lines[1].split() == "copy source stage I stage II - stage I".split()
    assert lines[2].split() == ["ssim_A", "+", "0.250", "0.250", "[0.200,", "0.300]", "(without", "1", "pairs)"]
    assert lines[3].split()[:4] == ["l1", "-", "0.250", "0.250"] and lines[3].endswith("(without 1 pairs)")
    assert lines[4:] == [
        "without is, fid: no file",
        "without lpips: no package",
        "joints that are missing: 20 % of the sources', 30 % of the targets'; 2 pairs without a pose",
        "garments that train has in another colour: 503 of 930, in 5,000 of 8,570 pairs",
    ]


def test_two_evaluations_give_the_same_to_the_last_digit_in_chunks_of_any_size(made, result, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", BATCH)
    assert evaluate(made, Chosen(), made / "again.json") == result


def test_2_and_3_ranks_write_the_files_of_one_process(made, result, tmp_path):
    for world in (2, 3):
        command = [sys.executable, "-c", RANK, "--run", str(made), "--out", f"{tmp_path}/{world}.json"]
        assert (
            exit_codes(start_ranks([command] * world, tmp_path / f"logs-{world}", CUDA_VISIBLE_DEVICES=""))
            == [0] * world
        )
        assert json.loads((tmp_path / f"{world}.json").read_text()) == result
        assert (tmp_path / f"{world}-pairs.csv").read_text() == (made / "evaluation-pairs.csv").read_text()
    assert not list(tmp_path.glob(".*"))


RANK = "from mscgan import chunks, evaluate, errors; chunks.CHUNK = 16; errors.run(evaluate.main)"


def test_a_rank_scores_on_its_share_of_the_cores(monkeypatch):
    threads, ranks, seen = torch.get_num_threads(), dist.Ranks(0, 2, 0, 2, torch.device("cpu")), []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(module, "take_ranks", lambda: None)
    monkeypatch.setattr(module, "evaluate", lambda *_: seen.append(torch.get_num_threads()))
    for name, answer in (("init", lambda: ranks), ("cores", lambda ranks: 3), ("shutdown", lambda: None)):
        monkeypatch.setattr(dist, name, answer)
    try:
        assert exit_code(monkeypatch, "--run", "nothing") == 0 and seen == [3]
    finally:
        torch.set_num_threads(threads)


def test_a_killed_evaluation_goes_on_with_the_chunk_it_was_at(made, result, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", BATCH)
    write, out = chunks._write, made / "killed.json"

    def killed_in_the_second(path, arrays):
        if path.name == "pairs-000001.npz":
            raise KeyboardInterrupt
        write(path, arrays)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(chunks, "_write", killed_in_the_second)
        evaluate(made, Chosen(), out)
    assert [path.name for path in made.glob(".killed.json.*/*")] == ["pairs-000000.npz"]
    written = []
    monkeypatch.setattr(chunks, "_write", lambda path, arrays: (written.append(path), write(path, arrays)))
    assert evaluate(made, Chosen(), out) == result
    assert [path.stem for path in written if path.parent.name.startswith(".killed")] == ["pairs-000001", "pairs-000002"]
    assert not list(made.glob(".*"))


def test_a_chunk_that_a_power_cut_damaged_is_made_again(made, result, monkeypatch, capsys):
    monkeypatch.setattr(chunks, "CHUNK", BATCH)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(evaluation, "_finish", killed)
        evaluate(made, Chosen(), made / "cut.json")
    (first,) = made.glob(".cut.json.*/pairs-000000.npz")
    with first.open("r+b") as file:
        file.truncate(1000)
    assert evaluate(made, Chosen(), made / "cut.json") == result
    assert f"{first} is damaged, so it is made again" in capsys.readouterr().err


def killed(*_):
    raise KeyboardInterrupt


def test_images_are_kept_also_of_the_chunks_that_a_killed_evaluation_had_scored(made, tmp_path, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(evaluation, "_finish", killed)
        evaluate(made, Chosen(scores=("l1",)), tmp_path / "e.json")
    evaluate(made, Chosen(scores=("l1",), keep=True), tmp_path / "e.json")
    assert len(list((tmp_path / "e-generated/stage_II").iterdir())) == 36
    assert not list(tmp_path.glob(".*"))  # the killed one's chunks are swept too


def test_weights_that_training_saves_meanwhile_are_refused(tmp_path, monkeypatch):
    run = write_run(tmp_path, persons=2, views=2)
    load = trained.load

    def saved_anew(folder):
        model = load(folder)
        (run / "generator.safetensors").write_bytes((run / "generator.safetensors").read_bytes() + b" ")
        return model

    monkeypatch.setattr(trained, "load", saved_anew)
    with pytest.raises(UserError, match="is being trained: its weights were saved anew meanwhile"):
        evaluate(run, Chosen())


def test_networks_that_make_no_numbers_are_the_users_to_mend(tmp_path):
    run = write_run(tmp_path, persons=2, views=2)
    with safe_open(run / "generator.safetensors", "pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    save_file(
        {name: tensor * float("nan") for name, tensor in tensors.items()}, run / "generator.safetensors", metadata
    )
    with pytest.raises(UserError, match="NaN or infinite"):
        evaluate(run, Chosen())


def test_other_weights_do_not_go_on_from_the_chunks_of_these(made, tmp_path, monkeypatch):
    for folder in (made, write_run(tmp_path, persons=4, views=3, stage="I")):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(evaluation, "_finish", killed)
            evaluate(folder, Chosen(), tmp_path / "out.json")
    assert len(list(tmp_path.glob(".out.json.*"))) == 2


def test_a_part_of_the_pairs_another_split_and_some_scores_can_be_chosen(made):
    part = evaluate(made, Chosen("train", 5, scores=("l1", "ssim_A")), made / "part.json")
    assert [part[key] for key in ("split", "pairs", "pairs_in_split")] == ["train", 5, 36]
    assert list(part["scores"]["stage_II"]) == ["ssim_A", "l1"] and part["left_out"] == {}
    with pytest.raises(UserError, match="37 pairs asked for"):
        evaluate(made, Chosen(pairs=37), made / "part.json")
    with pytest.raises(UserError, match="no score 'ssim'; choose some of ssim_A"):
        evaluate(made, Chosen(scores=("ssim",)), made / "part.json")


def test_the_command_prints_the_table_and_writes_json_csv_and_images(made, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mscgan.evaluate",
            "--run",
            made,
            "--pairs",
            "6",
            "--keep",
            "--out",
            tmp_path / "a.json",
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["pairs"] == 6
    assert done.stdout == f"{format_table(document)}\n{tmp_path / 'a.json'}\n"
    assert f"{document['scores']['stage_II']['l1']['value']:.3f} [" in done.stdout
    with (tmp_path / "a-pairs.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 5 * 6 and {line["ssim_A"] for line in lines if line["method"] == "real"} == {""}
    stage_II = [line for line in lines if line["method"] == "stage_II"]
    mean = np.mean([float(line["ssim_A"]) for line in stage_II])
    assert document["scores"]["stage_II"]["ssim_A"]["value"] == pytest.approx(mean, abs=1e-7)
    for line in stage_II:
        kept = Image.open(tmp_path / f"a-generated/stage_II/{line['source']}_{line['target']}.png")
        assert kept.size == (32, 64) and line["source"].endswith("_original.jpg")
    assert len(list((tmp_path / "a-generated").rglob("*.png"))) == 2 * 6
    assert not list(tmp_path.glob(".*"))


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
        "evaluation-ssim_A+l1.json": (["--scores", "l1,ssim_A,l1"], 4, "shards"),
        "mine/scores.json": (["--pairs", 2, "--out", made / "mine/scores.json"], 2, "shards"),
    }
    for words, _, _ in expected.values():
        assert exit_code(monkeypatch, "--run", made, *words) == 0
    found = {str(path.relative_to(made)) for path in made.rglob("*.json")}
    assert found == set(expected)
    assert not list(made.rglob(".*"))
    for name, (_, pairs, shards) in expected.items():
        written = json.loads((made / name).read_text())
        assert (written["pairs"], written["shards"]) == (pairs, str(tmp_path / shards))
        assert written["pairs_chosen"] == ("all" if pairs == 4 else "spread evenly over the split's table")


def test_what_cannot_be_written_was_printed_before(tmp_path, monkeypatch, capsys):
    made = write_run(tmp_path, persons=1, views=2)
    own = evaluation._own
    # Nobody, not even root, can write a file whose name a folder has.
    monkeypatch.setattr(evaluation, "_own", lambda out: (out.mkdir(), own(out))[1])
    assert exit_code(monkeypatch, "--run", made) == 2
    said = capsys.readouterr()
    assert any(line.startswith("ssim_A") for line in said.out.splitlines())
    assert said.err.startswith(f"error: cannot write {made}/evaluation.json (") and said.err.count("\n") == 1
    assert said.err.endswith("give another file with --out\n")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--run", "{made}/../rum"], "did you mean {made}/../run?"),
        (["--run", "nothing/at/all"], "no run folder 'nothing/at/all'; give the folder of a run"),
        (["--run", "{made}", "--data", "{made}/../shardz"], "did you mean {made}/../shards?"),
        (["--run", "{made}", "--pairs", "99"], "99 pairs asked for"),
        (
            ["--run", "{made}", "--scores", "l1", "--estimator", "paf"],
            "--estimator paf does nothing here: it finds the ",
        ),
        (["--run", "{made}", "--out", "{made}/config.yaml"], "config.yaml would be written over, which this command"),
        (["--run", "{made}", "--out", "{made}"], "is a folder; give a file with --out"),
        (["--run", "{made}", "--out", "{made}/" + 200 * "a"], "has more than 180 bytes; give a shorter one with --out"),
        (["--run", "{made}", "--out", "{made}/config.yaml/a.json"], "config.yaml is no folder"),
    ],
)
def test_a_mistake_is_one_line_before_the_networks_are_built(made, words, reason, monkeypatch, capsys):
    monkeypatch.setattr(trained, "load", lambda folder: pytest.fail("the networks were built"))
    assert exit_code(monkeypatch, *(word.format(made=made) for word in words)) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1
    assert reason.format(made=made) in said.err
