"""People held out of train: who they are, what stays as it was, and who is looked at while training."""

import hashlib
import json
import sys

import numpy as np
import pytest

from mscgan import trained
from mscgan.data.annotations import HEADER
from mscgan.data.shards import ShardSet
from mscgan.errors import UserError
from mscgan.evaluate import Chosen, evaluate
from mscgan.generate import main as generate
from mscgan.train import _samples
from shards import deepfashion, market1501, photographs
from shards.synthetic import plan
from shards.verify import verify
from shards.write import write
from tests.run_factory import write_run
from tests.shard_factory import jpeg, write_shards

TEN_PEOPLE = {"people": 10, "views": 3, "seed": 0, "height": 64, "width": 32, "test_pairs": 7}
JOINTS = "[" + ", ".join(["10"] * 18) + "]"


def people(split):
    return {image.person for image in split.images}


def photographed(folder, dataset, names):
    """(folder of pictures, keypoint file) of these names."""
    images, csv = folder / "images", folder / "a.csv"
    images.mkdir()
    for number, name in enumerate(names):
        (images / name).write_bytes(jpeg(number, dataset.HEIGHT, dataset.WIDTH))
    csv.write_text("\n".join([HEADER, *(f"{name}: {JOINTS}: {JOINTS}" for name in names)]))
    return images, csv


def market(folder, validation, **options):
    """A plan of 6 persons with two pictures each, and one of whom there is one."""
    names = [f"{number:04d}_c{camera}.jpg" for number in range(1, 7) for camera in (1, 2)] + ["0007_c1.jpg"]
    images, csv = photographed(folder, market1501, names)
    return photographs.plan(market1501, images, {"train": csv}, [], options.get("draw"), 0, validation)


def test_the_last_drawn_people_are_held_out_and_test_stays_byte_for_byte(tmp_path):
    whole, less = plan(**TEN_PEOPLE), plan(**TEN_PEOPLE, validation=3)
    assert list(less.splits) == ["train", "validation", "test"]
    assert people(less.splits["train"]) == {f"p{n:05d}" for n in range(5)}
    assert people(less.splits["validation"]) == {"p00005", "p00006", "p00007"}
    assert len(less.splits["train"].pairs) == 5 * 6 and len(less.splits["validation"].pairs) == 3 * 6
    assert less.source["validation"]["persons"] == 3 and "validation" not in whole.source
    for name, made in (("whole", whole), ("less", less)):
        write(made, tmp_path / name, workers=1)
    for file in ("test-00000.tar", "test-00000.idx", "test-pairs.npy"):
        assert (tmp_path / "less" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    faults, rows = verify(tmp_path / "less", workers=1)
    assert faults == [] and [(row[0], *row[2:5]) for row in rows] == [
        ("train", 15, 5, 30),
        ("validation", 9, 3, 18),
        ("test", 6, 2, 7),
    ]
    manifest = json.loads((tmp_path / "less/manifest.json").read_text())
    assert manifest["source"]["validation"]["persons"] == 3


@pytest.mark.parametrize("count", [-1, 8])
def test_drawn_people_to_train_on_must_be_left(count):
    with pytest.raises(UserError, match=f"--validation {count}: 10 people are 8 of train and 2 of test; give 0 to 7"):
        plan(**TEN_PEOPLE, validation=count)


def test_photographed_people_are_held_out_by_their_hash_with_all_their_pairs(tmp_path):
    made, report = market(tmp_path, 2)
    first = sorted((f"{n:04d}" for n in range(1, 7)), key=lambda name: hashlib.sha256(name.encode()).hexdigest())[:2]
    assert people(made.splits["validation"]) == set(first)
    assert people(made.splits["train"]) == {f"{n:04d}" for n in range(1, 8)} - set(first)
    assert len(made.splits["validation"].pairs) == 4 and len(made.splits["train"].pairs) == 8
    assert "7 persons, 12 pairs" in report[0]  # of the annotation, as published
    assert report[2] == "validation: 4 images of 2 persons held out of train, 4 pairs"
    assert made.source["validation"]["persons"] == 2
    for split in made.splits.values():
        for i, j in split.pairs:
            assert i != j and split.images[i].person == split.images[j].person


def test_a_draw_of_train_pairs_leaves_validation_whole(tmp_path):
    made, _ = market(tmp_path, 2, draw=5)
    assert len(made.splits["validation"].pairs) == 4 and len(made.splits["train"].pairs) == 5


def test_without_it_train_is_whole_and_its_source_as_ever(tmp_path):
    made, _ = market(tmp_path, 0)
    assert list(made.splits) == ["train"] and len(made.splits["train"].pairs) == 12
    assert "validation" not in made.source


def test_a_list_of_train_pairs_is_divided_by_people(tmp_path):
    images, csv = photographed(tmp_path, market1501, [f"{n:04d}_c{c}.jpg" for n in (1, 2) for c in (1, 2)])
    listed = tmp_path / "list.csv"
    listed.write_text("from,to\n0001_c2.jpg,0001_c1.jpg\n0002_c1.jpg,0002_c2.jpg\n")
    made, _ = photographs.plan(market1501, images, {"train": csv}, [listed], None, 0, 1)
    held_out = min(("0001", "0002"), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert people(made.splits["validation"]) == {held_out}
    listed_pairs = {"0001": [[1, 0]], "0002": [[0, 1]]}
    assert made.splits["validation"].pairs.tolist() == listed_pairs[held_out]
    assert made.splits["train"].pairs.tolist() == listed_pairs[{"0001": "0002", "0002": "0001"}[held_out]]


def test_a_garment_is_not_divided_between_train_and_validation(tmp_path):
    names = [
        f"fashionWOMENDressesid{item:08d}{colour:02d}_{view}.jpg"
        for item in (1, 2, 3)
        for colour in (1, 2)
        for view in ("1front", "3back")
    ]
    images, csv = photographed(tmp_path, deepfashion, names)
    made, _ = photographs.plan(deepfashion, images, {"train": csv}, [], None, 0, 1)
    garments = {split: {person[:-2] for person in people(made.splits[split])} for split in made.splits}
    assert len(people(made.splits["validation"])) == 2 and len(garments["validation"]) == 1
    assert not garments["train"] & garments["validation"]


@pytest.mark.parametrize(
    "count, split, words",
    [
        (6, "train", "--validation 6: train has 6 persons with a pair; give a number that leaves some"),
        (-1, "train", "--validation -1: give a number of persons of train"),
        (1, "test", "--validation 1: .* and --annotations CSV of train"),
    ],
)
def test_photographed_people_to_train_on_must_be_left(tmp_path, count, split, words):
    images, csv = photographed(tmp_path, market1501, [f"{n:04d}_c{c}.jpg" for n in range(1, 7) for c in (1, 2)])
    with pytest.raises(UserError, match=words):
        photographs.plan(market1501, images, {split: csv}, [], None, 0, count)


def test_another_number_is_another_build(tmp_path):
    write(plan(**TEN_PEOPLE, validation=3), tmp_path, workers=1)
    assert not write(plan(**TEN_PEOPLE, validation=3), tmp_path, workers=1)
    for count in (0, 2):
        with pytest.raises(UserError, match="another configuration"):
            write(plan(**TEN_PEOPLE, validation=count), tmp_path, workers=1)


def test_pictures_while_training_are_of_validation_or_of_train_and_never_of_test(tmp_path):
    both = write_shards(tmp_path / "both", splits=("train", "validation", "test"))
    samples, title = _samples(ShardSet(both, "train"))
    assert samples.split == "validation" and samples.persons[0].startswith("validation")
    assert title == "people of the validation split, not trained on"
    samples, title = _samples(ShardSet(write_shards(tmp_path / "two"), "train"))
    assert samples.split == "train" and title == "people of the train split"


def test_generate_and_evaluate_take_the_split(tmp_path, monkeypatch, capsys):
    run = write_run(tmp_path, persons=2, views=2)
    shards = str(write_shards(tmp_path / "other", 2, 2, splits=("train", "validation", "test")))
    result = evaluate(run, Chosen("validation", 2, shards))
    assert result and (result["split"], result["pairs"]) == ("validation", 2)
    titles = []
    whole = trained.grid
    monkeypatch.setattr(trained, "grid", lambda columns, title: titles.append(title) or whole(columns, title))
    monkeypatch.setattr(
        sys, "argv", ["generate", "--run", str(run), "--pairs", "2", "--split", "validation", "--data", shards]
    )
    generate()
    assert (run / "pairs-validation.png").exists() and titles == ["people of the validation split"]
    assert np.isfinite(result["scores"]["copy_source"]["l1"]["value"])
