"""Shards of a user's own pictures: pixels and keypoints move together, persons are divided, nothing goes unsaid."""

import csv
import hashlib
import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mscgan import photos
from mscgan.data.annotations import HEADER, numbered
from mscgan.data.read import read_images
from mscgan.data.shards import ShardSet
from mscgan.errors import UserError
from mscgan.estimators import Person
from shards import deepfashion, find_poses, photographs
from shards import folder as module
from shards import write as writer
from shards.folder import LEFT_OUT, POSES, SOURCES, Asked, plan
from shards.own_frame import framed
from shards.verify import verify
from shards.write import write

BUILD = Path(__file__).parents[1] / "shards/build.py"
DATA = Path(__file__).parents[2] / "shared/data/deepfashion"
# Shares of width and height, of somebody who stands; the last joint is not seen.
BODY = np.array(
    [
        (50, 12), (50, 20), (40, 20), (35, 35), (33, 48), (60, 20), (65, 35), (67, 48), (43, 50), (43, 70), (43, 88),
        (57, 50), (57, 70), (57, 88), (47, 10), (53, 10), (45, 11), (-1, -1),
    ]
) / 100  # fmt: skip
WRIST = 4  # which is drawn


def photograph(path: Path, width: int, height: int, seed: int = 0, body: np.ndarray = BODY, **options) -> list:
    """Saves a dark picture with a white disc at the wrist; its keypoints."""
    there = body[:, :1] >= 0
    points = np.where(there, (body * [width, height]).round(), -1)
    ys, xs = np.mgrid[:height, :width]
    x, y = points[WRIST]
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 2] = seed
    pixels[np.hypot(xs - x, ys - y) <= height / 25] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return points.astype(int).tolist()


def annotate(path: Path, rows: dict[str, list]) -> Path:
    lines = [f"{name}: {[y for _, y in points]}: {[x for x, _ in points]}" for name, points in rows.items()]
    path.write_text("\n".join([HEADER, *lines]))
    return path


@pytest.fixture
def own(tmp_path):
    """Pictures of five people in folders, of other formats and sizes, and what builds them."""
    images, rows = tmp_path / "photos", {}
    kinds = ["a b.jpg", "ü:1.PNG", "c.webp"]
    for person, name in enumerate(("anna", "bert", "carl", "dora", "emil")):
        for view, kind in enumerate(kinds[: 2 + person % 2]):
            width, height = ((48, 96), (300, 200), (120, 240))[(person + view) % 3]
            path = f"{name}/{kind}"
            rows[path] = photograph(images / path, width, height, 10 * person + view)
    return Asked(images, "folder", 64, 32, annotate(tmp_path / "poses.csv", rows), test=1)


def made(asked, out) -> list[str]:
    built, report = plan(asked, out, workers=1)
    write(built, out, workers=1)
    assert verify(out, workers=1)[0] == []
    return report


def rows(path: Path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def by_hash(names) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())


@pytest.mark.parametrize("crop", ["whole", "auto"])
def test_pixels_and_keypoints_move_together(own, tmp_path, crop):
    made(replace(own, crop=crop), tmp_path / "out")
    shards = ShardSet(tmp_path / "out", "train")
    for pixels, keypoints in zip(read_images(shards, np.arange(len(shards))), shards.keypoints):
        light = np.clip(pixels[..., 0].astype(float) - 100, 0, None)
        ys, xs = np.mgrid[: shards.height, : shards.width]
        seen = [(light * xs).sum() / light.sum(), (light * ys).sum() / light.sum()]
        assert np.abs(keypoints[WRIST] - seen).max() < 0.6
        assert (keypoints[17] == -1).all() and (keypoints[:17] >= 0).all()


def test_a_large_picture_is_reduced_while_it_is_read_and_lands_in_the_same_place(own, tmp_path, monkeypatch):
    built, _ = plan(own, tmp_path / "out", 1)
    image = next(image for image in built.splits["train"].images if image.recipe.picture.size == (120, 240))
    whole = framed(image.recipe, 64, 32)
    monkeypatch.setattr(photos, "ENOUGH", 100)
    reduced = framed(image.recipe, 64, 32)
    first, second = (np.asarray(Image.open(io.BytesIO(sample.jpeg))).astype(int) for sample in (whole, reduced))
    assert whole.keypoints == reduced.keypoints and 0 < np.abs(first - second).mean() < 3


def test_a_person_who_is_cut_out_fills_the_frame(tmp_path):
    points = {f"a/{view}.png": photograph(tmp_path / f"p/a/{view}.png", 400, 100, view) for view in range(2)}
    asked = Asked(tmp_path / "p", "folder", 64, 32, annotate(tmp_path / "a.csv", points), test=0, crop="auto")
    ys = [y for _, y in framed(plan(asked, tmp_path / "o", 1)[0].splits["train"].images[0].recipe, 64, 32).keypoints]
    assert (
        max(ys) - min(y for y in ys if y >= 0) > 5
    )  # 400 pixels of arms and legs decide: the whole picture gives 12 %
    assert (max(ys) - min(y for y in ys if y >= 0)) / 64 > 3 * 0.78 * 32 / 400


def test_a_picture_lies_in_the_frame_as_a_whole_with_its_edges_repeated(tmp_path):
    """As the field's pictures of 256x176 (height x width) in 256x256: bands of 40 pixels at both sides."""
    points = {f"a/{view}.png": photograph(tmp_path / f"p/a/{view}.png", 176, 256, view) for view in range(2)}
    asked = Asked(tmp_path / "p", "folder", 256, 256, annotate(tmp_path / "a.csv", points), test=0)
    built, _ = plan(asked, tmp_path / "out", 1)
    sample = framed(built.splits["train"].images[0].recipe, 256, 256)
    assert sample.keypoints == [[x + 40, y] if x >= 0 else [-1, -1] for x, y in points["a/0.png"]]
    with Image.open(io.BytesIO(sample.jpeg)) as picture:
        pixels = np.asarray(picture).astype(int)
    assert pixels.shape == (256, 256, 3)
    with Image.open(tmp_path / "p/a/0.png") as picture:
        source = np.asarray(picture).astype(int)
    assert np.abs(pixels - np.pad(source, ((0, 0), (40, 40), (0, 0)), mode="edge")).mean() < 1


def test_high_resolution_deepfashion_keeps_its_shape(tmp_path):
    """750x1101 (width x height), named in its tree, its keypoint file in those pixels by flat names."""
    csv_rows = {}
    for view in ("1_front", "2_side"):
        path = tmp_path / f"img/WOMEN/Dresses/id_00000002/02_{view}.jpg"
        csv_rows[f"fashionWOMENDressesid0000000202_{view}.jpg".replace("_f", "f").replace("_s", "s")] = photograph(
            path, 750, 1101, len(view), quality=95
        )
    rule = r"([^/]+/id_\d{8}/\d{2})_"
    built, _ = plan(
        Asked(tmp_path / "img", rule, 256, 256, annotate(tmp_path / "a.csv", csv_rows), test=0), tmp_path, 1
    )
    image = built.splits["train"].images[0]
    assert image.person == "Dresses/id_00000002/02" and image.key == "WOMEN_Dresses_id_00000002_02_1_front"
    keypoints = np.array(framed(image.recipe, 256, 256).keypoints)
    source = np.array(next(iter(csv_rows.values())))
    scale = 256 / 1101
    expected = (source[:17] + 0.5) * scale - 0.5 + [(256 - 750 * scale) / 2, 0]
    assert np.abs(keypoints[:17] - expected).max() < 0.01


def test_coordinates_are_of_the_upright_picture(tmp_path):
    points = {"a/0.jpg": photograph(tmp_path / "p/a/0.jpg", 64, 128, quality=95)}
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(tmp_path / "p/a/0.jpg") as upright:
        upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "p/a/1.jpg", exif=exif, quality=95)
    points["a/1.jpg"] = points["a/0.jpg"]
    built, _ = plan(Asked(tmp_path / "p", "folder", 128, 64, annotate(tmp_path / "a.csv", points), test=0), tmp_path, 1)
    straight, turned = (framed(image.recipe, 128, 64) for image in built.splits["train"].images)
    assert straight.jpeg == (tmp_path / "p/a/0.jpg").read_bytes()  # of the frame's size: its own bytes
    assert turned.keypoints == straight.keypoints
    first, second = (np.asarray(Image.open(io.BytesIO(sample.jpeg))).astype(int) for sample in (straight, turned))
    assert np.abs(first - second).mean() < 2


def test_persons_are_divided_by_the_hash_of_their_names_and_have_all_their_pairs(own, tmp_path):
    report = made(replace(own, validation=1), tmp_path / "out")
    order = by_hash(("anna", "bert", "carl", "dora", "emil"))
    of_split = {split: set(ShardSet(tmp_path / "out", split).persons) for split in ("test", "validation", "train")}
    assert of_split == {"test": {order[0]}, "validation": {order[1]}, "train": set(order[2:])}
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    pictures = {"anna": 2, "bert": 3, "carl": 2, "dora": 3, "emil": 2}
    for split, persons in of_split.items():
        assert manifest["splits"][split]["pairs"] == sum(
            pictures[person] * (pictures[person] - 1) for person in persons
        )
    assert report[-1].startswith("test: ") and "of 1 persons" in report[-1]
    assert manifest["audit"]["shared"]["test in train"]["persons"] == 0


@pytest.mark.parametrize(("test", "persons"), [(0.2, 1), (0.4, 2), (0.01, 1), (2, 2), (0, 0)])
def test_the_test_split_is_a_number_of_persons_or_a_share(own, tmp_path, test, persons):
    built, _ = plan(replace(own, test=test), tmp_path / "out", 1)
    found = {image.person for image in built.splits["test"].images} if "test" in built.splits else set()
    assert found == set(by_hash(("anna", "bert", "carl", "dora", "emil"))[:persons])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"test": 2.5}, "--test 2.5: give a number of persons, or a share"),
        ({"test": -1}, "--test -1: give a number"),
        ({"test": float("nan")}, "--test nan"),
        ({"test": float("inf")}, "--test inf"),
        (
            {"test": 5},
            "--test 5 and --validation 0 are 5 persons of the 5 who .* nobody is left to train on; .* --test 0",
        ),
        ({"test": 2, "validation": 3}, "are 5 persons of the 5"),
        ({"validation": -1}, "--validation -1: give"),
        (
            {"height": 256, "width": 176},
            "--height 256 --width 176: the networks .*; give --height 256 --width 256: pict",
        ),
        ({"height": 100, "width": 40}, "give --height 128 --width 64"),
        ({"height": 128, "width": 256}, "give --height 256 --width 256"),
        ({"height": 0, "width": 0}, "give --height 32 --width 16"),
        ({"annotations": None}, "where are the poses.*--annotations FILE, or --estimator NAME"),
        ({"estimator": "movenet"}, "and not both"),
        ({"images": Path("none")}, "--images none is not a folder"),
    ],
)
def test_what_does_not_fit_is_refused(own, tmp_path, change, words):
    with pytest.raises(UserError, match=words):
        plan(replace(own, **change), tmp_path / "out", 1)


def test_what_is_left_out_is_named_with_its_reason(own, tmp_path):
    images = own.images
    everyone = {row.name: row.keypoints for _, row in numbered(own.annotations)}
    no_hip = BODY.copy()
    no_hip[8] = -1
    everyone["anna/hip.png"] = photograph(images / "anna/hip.png", 64, 128, 101, no_hip)
    everyone["anna/nobody.png"] = photograph(images / "anna/nobody.png", 64, 128, 102) and [[-1, -1]] * 18
    everyone["anna/point.png"] = photograph(images / "anna/point.png", 64, 128, 103) and [[9, 9]] * 18
    everyone["frida/1.png"] = photograph(images / "frida/1.png", 64, 128, 104)
    photograph(images / "anna/unknown.png", 64, 128, 105)
    photograph(images / "cover.png", 64, 128, 106)
    shutil.copy(images / "bert/a b.jpg", images / "bert/copy.jpg")
    everyone["gone.png"] = [[5, 5]] * 18
    (images / "notes.txt").touch()
    (images / ".hidden.jpg").touch()
    annotate(own.annotations, everyone)
    report = made(own, tmp_path / "out")
    assert {row["file"]: row["reason"] for row in rows(tmp_path / "out" / LEFT_OUT)} == {
        "anna/hip.png": "a hip or a shoulder was not found in it",
        "anna/nobody.png": "nobody was found in it",
        "anna/point.png": "all its joints are in one place",
        "anna/unknown.png": "no pose is given for it",
        "bert/copy.jpg": "a copy of another picture of the person",
        "cover.png": "nobody is named for it",
        "frida/1.png": "the only usable picture of its person",
    }
    assert "1 left out, nobody was found in it: anna/nobody.png" in report
    assert "1 files are no pictures by their names, notes.txt: ignored" in report
    assert f"1 rows of {own.annotations} name no picture that is used, gone.png: ignored" in report
    used = rows(tmp_path / "out" / SOURCES)
    assert len(used) == 12 and {row["person"] for row in used} == {"anna", "bert", "carl", "dora", "emil"}


def test_sources_say_which_file_an_image_was_made_from(own, tmp_path):
    made(own, tmp_path / "out")
    for row in rows(tmp_path / "out" / SOURCES):
        shards = ShardSet(tmp_path / "out", row["split"])
        i = shards.keys.index(row["key"])
        assert shards.persons[i] == row["person"] == row["file"].split("/")[0]
        assert shards.names[i] == f"{row['key']}.jpg"


def test_names_that_would_give_the_same_key_get_different_ones(tmp_path):
    names = ["a/1.jpg", "a_1.jpg", "a/1.png", "ü.jpg", "é.jpg", "x" * 200 + ".jpg", "b/2.jpg"]
    keys = module._keys(names)
    assert len(set(keys.values())) == len(names) and keys["b/2.jpg"] == "b_2"
    assert all(len(key) <= 90 and set(key).isdisjoint("./ ") for key in keys.values())


def test_of_copies_the_one_that_has_a_pose_is_kept(own, tmp_path):
    shutil.copy(own.images / "bert/a b.jpg", own.images / "bert/a b (1).jpg")  # whose name comes first
    report = made(own, tmp_path / "out")
    assert "1 left out, a copy of another picture of the person: bert/a b (1).jpg" in report
    assert "bert/a b.jpg" in {row["file"] for row in rows(tmp_path / "out" / SOURCES)}


def test_a_picture_of_two_persons_is_said(own, tmp_path):
    shutil.copy(own.images / "bert/a b.jpg", own.images / "anna/d.jpg")
    everyone = {row.name: row.keypoints for _, row in numbered(own.annotations)}
    annotate(own.annotations, everyone | {"anna/d.jpg": everyone["bert/a b.jpg"]})
    assert any(
        line.startswith("warning: 1 pictures are there for two persons, anna/d.jpg = bert/a b.jpg")
        for line in plan(own, tmp_path / "out", 1)[1]
    )


def test_people_who_get_small_are_said_unless_they_are_cut_out(tmp_path):
    points = {f"a/{view}.png": photograph(tmp_path / f"p/a/{view}.png", 400, 100, view) for view in range(2)}
    asked = Asked(tmp_path / "p", "folder", 64, 32, annotate(tmp_path / "a.csv", points), test=0)
    assert any(
        "half of the people are less than 10 % of the frame high; --crop auto" in line
        for line in plan(asked, tmp_path / "o", 1)[1]
    )
    assert not any("--crop auto" in line for line in plan(replace(asked, crop="auto"), tmp_path / "o", 1)[1])


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (
            {"anna/a b.jpg": [[48, 0]] + [[5, 5]] * 17},
            "line 2: anna/a b.jpg: keypoint 0 at x 48, y 0 is outside a 96x48",
        ),
        ({"x.jpg": [[5, 5]] * 18}, "names none of the 12 pictures: it has x.jpg, the pictures are anna/a b.jpg,"),
        ({"anna/a b.jpg": [[5, 5]] * 18, "anna/ü:1.PNG": [[9, 9]] * 18}, "upper left quarter; is it of smaller copies"),
        ({"a b.jpg": [[5, 5]] * 18}, "a b.jpg may be anna/a b.jpg or bert/a b.jpg; give their paths"),
        ({"anna/a b.jpg": [[47, 90]] * 18}, "no pair to build, .*11 left out, no pose is given for it"),
    ],
)
def test_a_keypoint_file_that_does_not_fit_is_refused(own, tmp_path, points, words):
    with pytest.raises(UserError, match=words):
        plan(replace(own, annotations=annotate(tmp_path / "b.csv", points)), tmp_path / "out", 1)


def test_a_damaged_picture_is_named_and_once_mended_the_build_goes_on(own, tmp_path):
    whole = (own.images / "carl/a b.jpg").read_bytes()
    (own.images / "carl/a b.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="carl/a b.jpg cannot be decoded"):
        made(own, tmp_path / "out")
    (own.images / "carl/a b.jpg").write_bytes(whole)
    made(own, tmp_path / "out")
    assert plan(own, tmp_path / "out", 1) == (None, [])


def test_a_head_that_is_damaged_is_named_before_the_build(own, tmp_path):
    (own.images / "carl/a b.jpg").write_bytes(b"\xff\xd8 no more")
    with pytest.raises(UserError, match="carl/a b.jpg is no picture of a known kind"):
        plan(own, tmp_path / "out", 1)


def test_too_many_pairs_name_the_person_who_has_them(own, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_PAIRS", 17)
    with pytest.raises(UserError, match="18 pairs, where 17 are the most: .* bert alone has 3 pictures"):
        plan(own, tmp_path / "out", 1)


@pytest.mark.parametrize("change", [{"height": 128, "width": 64}, {"crop": "auto"}, {"test": 2}, {"person": "^(.)"}])
def test_another_configuration_is_refused_in_the_same_folder(own, tmp_path, change):
    made(own, tmp_path / "out")
    with pytest.raises(UserError, match=f"holds shards of another configuration .*{next(iter(change))}"):
        made(replace(own, **change), tmp_path / "out")


@pytest.mark.skipif(not DATA.exists(), reason="no photographs in ../shared/data")
def test_pictures_of_a_data_set_come_out_as_through_its_own_door(tmp_path):
    images, keypoints = DATA / "images", DATA / "fasion-annotation-test.csv"
    theirs, _ = photographs.plan(deepfashion, images, {"test": keypoints}, [], None, 0)
    ours, _ = plan(Asked(images, r"(.*id\d{10})_", 256, 256, keypoints, test=1), tmp_path / "out", 1)
    found = {}
    for door, built in (("theirs", theirs), ("ours", ours)):
        pairs = set()
        for made in built.splits.values():
            keys = [image.key for image in made.images]
            pairs |= {(keys[source], keys[target]) for source, target in made.pairs}
        images = {image.key: image for made in built.splits.values() for image in made.images}
        found[door] = images, pairs
    assert found["ours"][1] == found["theirs"][1] and len(found["ours"][1]) > 100
    for key in sorted(found["ours"][0])[::20]:
        ours_image, their_image = (found[door][0][key] for door in ("ours", "theirs"))
        assert ours_image.person == their_image.person
        assert framed(ours_image.recipe, 256, 256) == photographs.photograph(their_image.recipe, 256, 256)


@pytest.fixture
def estimator(monkeypatch):
    """Finds BODY in any picture that is not black; how often it was asked."""
    asked = []

    def estimate(pixels: np.ndarray) -> list[Person]:
        asked.append(pixels.shape)
        points = np.where(BODY < 0, -1, BODY * pixels.shape[1::-1]).astype(np.float32)
        return [Person(points, np.ones(18, np.float32), 1.0)] if pixels.max() > 200 else []

    find_poses._opened.cache_clear()
    monkeypatch.setattr(find_poses, "open_estimator", lambda name: estimate)
    yield asked
    find_poses._opened.cache_clear()


def test_found_poses_are_written_as_a_keypoint_file_that_can_be_mended(own, tmp_path, estimator):
    Image.new("RGB", (64, 128)).save(own.images / "anna/dark.png")
    finds = replace(own, annotations=None, estimator="movenet")
    report = made(finds, tmp_path / "out")
    assert len(estimator) == 13 and "1 left out, nobody was found in it: anna/dark.png" in report
    found = {row.name: row for _, row in numbered(tmp_path / "out" / POSES)}
    assert len(found) == 13 and not found["anna/dark.png"].usable and found["anna/ü:1.PNG"].usable
    again = replace(own, annotations=tmp_path / "out" / POSES)
    made(again, tmp_path / "again")
    for split in ("train", "test"):
        first, second = ShardSet(tmp_path / "out", split), ShardSet(tmp_path / "again", split)
        assert first.keys == second.keys and (first.keypoints == second.keypoints).all()
    assert len(estimator) == 13


def test_a_finished_build_finds_nothing_again_and_another_is_refused_before_it_does(own, tmp_path, estimator):
    finds = replace(own, annotations=None, estimator="movenet")
    made(finds, tmp_path / "out")
    assert plan(finds, tmp_path / "out", 1) == (None, [])
    with pytest.raises(UserError, match="another configuration .test.; give --out a new folder"):
        plan(replace(finds, test=2), tmp_path / "out", 1)
    photograph(own.images / "anna/new.png", 64, 128, 77)
    with pytest.raises(UserError, match="the pictures are not those any more that"):
        plan(finds, tmp_path / "out", 1)
    assert len(estimator) == 12


def test_a_damaged_folder_is_made_again_and_a_list_that_was_mended_in_it_is_kept(own, tmp_path, estimator):
    finds = replace(own, annotations=None, estimator="movenet")
    made(finds, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    (tmp_path / "out/train-images.npy").unlink()
    (tmp_path / "out" / POSES).write_text("mended")
    made(finds, tmp_path / "out")
    after = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert after == before | {f"{POSES}.old": b"mended"}
    manifest = json.loads(before["manifest.json"])
    (tmp_path / "out/manifest.json").write_text(json.dumps(manifest | {"schema": 1}))
    with pytest.raises(UserError, match="manifest.json: has schema 1, this version reads 2; give --out a new folder"):
        plan(finds, tmp_path / "out", 1)


def test_poses_are_kept_where_the_build_failed_and_serve_another_size(own, tmp_path, estimator):
    finds = replace(own, annotations=None, estimator="movenet")
    whole = (own.images / "emil/ü:1.PNG").read_bytes()
    (own.images / "emil/ü:1.PNG").write_bytes(whole[:-40])
    with pytest.raises(UserError, match="emil/ü:1.PNG cannot be decoded"):
        made(finds, tmp_path / "out")
    (own.images / "emil/ü:1.PNG").write_bytes(whole)
    made(replace(finds, height=128, width=64), tmp_path / "out")
    assert len(estimator) == 12


def test_a_build_that_was_stopped_goes_on_from_the_last_finished_tar(own, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "IMAGES_PER_TAR", 4)
    built, _ = plan(own, tmp_path / "out", 1)
    recipes = []

    def stopped(recipe):
        recipes.append(recipe)
        if len(recipes) == 7:
            raise KeyboardInterrupt
        return built.make(recipe)

    with pytest.raises(KeyboardInterrupt):
        write(replace(built, make=stopped), tmp_path / "out", 1)
    first = (tmp_path / "out/train-00000.tar").stat()
    made(own, tmp_path / "out")
    assert (tmp_path / "out/train-00000.tar").stat().st_mtime_ns == first.st_mtime_ns
    made(own, tmp_path / "whole")
    for tar in (tmp_path / "whole").glob("*.tar"):
        assert tar.read_bytes() == (tmp_path / "out" / tar.name).read_bytes()


def test_the_command_builds_says_what_it_did_and_does_nothing_the_second_time(own, tmp_path):
    command = [sys.executable, str(BUILD), "folder", "--images", str(own.images), "--annotations", str(own.annotations)]
    command += ["--person", "^([a-z]+)/", "--height", "64", "--width", "32", "--crop", "auto", "--test", "2"]
    command += ["--validation", "1", "--workers", "2", "--out", str(tmp_path / "out")]
    first = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert first.returncode == 0, first.stderr
    assert "12 pictures, 12 of them of 5 persons" in first.stdout and "test in train: 0 persons" in first.stdout
    rows_of = {split: count for split, _, _, count, *_ in verify(tmp_path / "out", workers=1)[1]}
    assert rows_of == {"train": 2, "validation": 1, "test": 2}
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.stdout == f"{tmp_path / 'out'} is already built; nothing to do\n"
    wrong = subprocess.run([*command, "--person", "x"], capture_output=True, text=True, timeout=300)
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: --person x: an expression without a group")
