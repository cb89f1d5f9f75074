"""Folders of anybody's images: the same scores as a run's, and what is written."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mscgan import evaluate as command
from mscgan.compare import compare
from mscgan.data.shards import ShardSet
from mscgan.errors import UserError, run
from mscgan.evaluate import Chosen, evaluate
from mscgan.evaluate_folder import evaluate_folder
from mscgan.image_folder import match
from mscgan.scored import FolderImages
from tests.run_factory import write_run
from tests.shard_factory import jpeg, write_shards

PIXELS = ("ssim_A", "ssim_B", "mask_ssim_A", "mask_ssim_A_target", "mask_ssim_B", "l1", "sharpness")


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """A run whose images were kept, as its evaluation wrote them; the true images as PNGs in true/, and annotations."""
    folder = tmp_path_factory.mktemp("folder")
    run = write_run(folder, persons=3, views=3)
    evaluate(run, Chosen(keep=True))
    shards = ShardSet(folder / "shards", "test")
    lines = ["name:keypoints_y:keypoints_x"]
    (folder / "true").mkdir()
    for number, name in enumerate(shards.names):
        (folder / "true" / name).write_bytes(shards.read(number))
        x, y = ([int(value) for value in column] for column in shards.keypoints[number].T)
        lines.append(f"{name}: {y}: {x}")
    (folder / "keypoints.csv").write_text("\n".join(lines) + "\n")
    return folder


def scored(kept: Path, tmp_path: Path, **others: object) -> dict:
    made = {"generated": kept / "run/generated/stage_II", "target": kept / "true", "source": kept / "true"}
    document = evaluate_folder(**(made | {"scores": PIXELS, "out": tmp_path / "folder.json"} | others))
    assert document
    return document


def test_what_a_run_kept_scores_as_the_run_did(kept, tmp_path):
    document = scored(kept, tmp_path)
    of_run = json.loads((kept / "run/evaluation.json").read_text())["scores"]
    for score in ("ssim_A", "ssim_B", "l1", "sharpness"):
        for of_folder, method in (("generated", "stage_II"), ("copy_source", "copy_source")):
            value = document["scores"][of_folder][score]["value"]
            assert value == pytest.approx(of_run[method][score]["value"], abs=1e-9), (score, method)
    assert document["pairs"] == 18


def test_masks_are_drawn_of_the_annotations(kept, tmp_path):
    without = scored(kept, tmp_path)
    assert without["left_out"]["mask_ssim_A"] == "it needs keypoints of the source"
    document = scored(kept, tmp_path, annotations=kept / "keypoints.csv")
    of_run = json.loads((kept / "run/evaluation.json").read_text())["scores"]["stage_II"]
    for score in ("mask_ssim_A", "mask_ssim_A_target", "mask_ssim_B"):  # whole pixels in the file move an edge or two
        assert document["scores"]["generated"][score]["value"] == pytest.approx(of_run[score]["value"], abs=0.03)
    values = [document["scores"]["generated"][score]["value"] for score in ("mask_ssim_A", "mask_ssim_A_target")]
    assert values[0] != values[1]


def test_keypoints_of_the_shards_are_exactly_the_runs(kept, tmp_path):
    document = scored(kept, tmp_path, annotations=kept / "shards")
    of_run = json.loads((kept / "run/evaluation.json").read_text())["scores"]["stage_II"]
    for score in ("mask_ssim_A", "mask_ssim_A_target", "mask_ssim_B"):
        assert document["scores"]["generated"][score]["value"] == pytest.approx(of_run[score]["value"], abs=1e-9)


def test_a_file_of_the_users_own_names_and_pixels_is_refused_with_where_the_others_are(kept, tmp_path):
    own = tmp_path / "poses.csv"
    own.write_text(f"name:keypoints_y:keypoints_x\nanna/1.png: {[900] * 18}: {[700] * 18}\n")
    with pytest.raises(UserError, match="no line for .*, but for anna/1; .* sources.csv there says which is which"):
        scored(kept, tmp_path, annotations=own)
    Image.new("RGB", (32, 64)).save(tmp_path / "1.png")
    with pytest.raises(UserError, match="have no target in .*, which has 1.png; .* the keys of sources.csv there"):
        scored(kept, tmp_path, target=tmp_path)
    other = write_shards(tmp_path / "other", height=128, width=64)
    with pytest.raises(UserError, match=r"its images are 128x64 \(height x width\), those to score 64x32"):
        scored(kept, tmp_path, annotations=other)


def test_the_real_images_are_the_targets_each_once(kept):
    folders = kept / "run/generated/stage_II", kept / "true", kept / "true"
    scored = FolderImages(match(*folders, None), None)
    found = {image.tobytes() for image in scored.real_images(np.arange(scored.real))}
    assert found == {np.array(Image.open(path)).tobytes() for path in (kept / "true").iterdir()}
    assert scored.real == 9 and scored.real_are == "the 9 targets"


def test_without_sources_there_is_no_copy_of_them(kept, tmp_path):
    assert list(scored(kept, tmp_path, source=None)["scores"]) == ["mean_image", "real", "generated"]


def test_a_run_and_a_folder_of_the_same_pairs_are_compared(kept, tmp_path):
    scored(kept, tmp_path)
    document = compare(kept / "run", tmp_path / "folder.json")
    assert document["differences"]["second - first"]["ssim_A"]["value"] == pytest.approx(0, abs=1e-6)
    assert set(document["scores"]) == {"first", "second"}


def test_a_damaged_image_is_named_and_nothing_is_written(kept, tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    for path in sorted((kept / "run/generated/stage_II").iterdir()):
        (made / path.name).write_bytes(path.read_bytes())
    (made / path.name).write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=path.name):
        scored(kept, tmp_path, generated=made)
    assert not list(tmp_path.glob("*.json")) and not list(tmp_path.glob(".*"))


def test_a_name_that_is_no_utf8_is_refused_before_the_work(kept, tmp_path):
    (tmp_path / "made").mkdir()
    path = sorted((kept / "run/generated/stage_II").iterdir())[0]
    (tmp_path / "made" / f"\udcff{path.name}").write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="whose name is no UTF-8"):
        scored(kept, tmp_path, generated=tmp_path / "made")


def test_the_list_of_pairs_is_not_written_over(kept, tmp_path):
    (tmp_path / "test-pairs.csv").write_text("from,to\na.jpg,b.jpg\n")
    with pytest.raises(UserError, match="test-pairs.csv would be written over, .* with --out"):
        scored(kept, tmp_path, pairs=tmp_path / "test-pairs.csv", out=tmp_path / "test.json")


def test_the_command_says_a_mistake_in_a_line(kept, tmp_path, monkeypatch, capsys):
    for words, reason in (
        (["--generated", kept / "nothing"], "nothing"),
        (["--generated", kept / "true", "--scores", "ssim_C"], "no score 'ssim_C'"),
        (["--generated", kept / "true", "--scores", "l1", "--estimator", "paf"], "poses of pckh and pck_torso alone"),
        (["--generated", kept / "run/generated/stage_II", "--target", kept / "true", "--out", kept], "is a folder"),
    ):
        monkeypatch.setattr(sys, "argv", ["evaluate", "folder", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            run(command.main)
        said = capsys.readouterr().err
        assert left.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1 and reason in said


def test_a_triptych_needs_no_other_folder(tmp_path):
    folder = tmp_path / "made"
    folder.mkdir()
    for number in range(3):
        panels = [Image.open(_file(tmp_path, 10 * number + place)) for place in range(3)]
        wide = np.concatenate([np.array(panel) for panel in panels], axis=1)
        Image.fromarray(wide).save(folder / f"000{number}_a.jpg___000{number}_b.jpg.png")
    document = evaluate_folder(folder)
    assert document and list(document["scores"]) == ["copy_source", "mean_image", "real", "generated"]
    expected = np.mean([_l1(10 * number + 2, 10 * number + 1) for number in range(3)])
    assert document["scores"]["generated"]["l1"]["value"] == pytest.approx(expected)
    assert (folder / "evaluation.json").exists() and (folder / "evaluation-pairs.csv").exists()


def _file(folder: Path, seed: int) -> Path:
    path = folder / f"{seed}.jpg"
    path.write_bytes(jpeg(seed, 64, 32))
    return path


def _l1(made: int, target: int) -> float:
    a, b = (np.array(Image.open(io.BytesIO(jpeg(seed, 64, 32)))) / 127.5 for seed in (made, target))
    return np.abs(a - b).mean()
