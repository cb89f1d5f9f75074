"""The audit: persons, garments and images that splits share, and missing joints; kept in the manifest."""

import json

import numpy as np

from mscgan.data.shards import ShardSet
from shards.audit import audit, lines
from shards.build import main as build
from shards.deepfashion import item
from shards.synthetic import plan
from shards.verify import verify
from shards.write import write


def garment(number, colour):
    return f"fashionWOMENDressesid{number:08d}{colour:02d}"


def fact(digest, *missing):
    return {"sha256": digest, "keypoints": [[-1, -1] if joint in missing else [3, 4] for joint in range(18)]}


def test_what_splits_share_is_counted_in_people_garments_pairs_and_images():
    found = audit(
        {"train": ["a", "b", "c"], "test": ["d", "e", "f", "g"]},
        {
            "train": [garment(1, 1), garment(1, 1), garment(2, 1)],
            "test": [garment(1, 2), garment(1, 2), garment(3, 1), garment(3, 1)],
        },
        {"train": np.array([[0, 1]]), "test": np.array([[0, 1], [1, 0], [2, 3]])},
        {
            "train": [fact(digest, 0, 17) for digest in "xxy"],
            "test": [fact("z"), fact("y", 0), fact("v"), fact("w")],
        },
        item,
    )
    assert found["shared"] == {"test in train": {"persons": 0, "items": 1, "of_items": 2, "pairs": 2, "of_pairs": 3}}
    assert {name: count for name, count in found["missing_joints"]["train"].items() if count} == {
        "images": 3,
        "nose": 3,
        "left ear": 3,
    }
    assert found["missing_joints"]["test"]["nose"] == 1 and found["missing_joints"]["test"]["images"] == 4
    assert found["duplicates"] == {
        "by": "SHA-256 of the JPEG bytes",
        "train": 1,
        "test": 0,
        "test in train": 1,
        "examples": [["a", "b"], ["c", "e"]],
    }
    assert lines(json.loads(json.dumps(found))) == [
        "audit: test in train: 0 persons; in another colour 1 of 2 garments (2 of 3 pairs)",
        "audit: missing joints in train: nose 100 %, left ear 100 %",
        "audit: missing joints in test: nose 25 %",
        "audit: images with the bytes of another: 1 in train, 1 test in train: a = b, c = e",
    ]


def test_a_person_in_two_splits_is_counted():
    one = {"train": ["a"], "test": ["b"]}
    facts = {"train": [fact("x")], "test": [fact("y")]}
    none = np.empty((0, 2), np.int64)
    found = audit(one, {"train": ["p"], "test": ["p"]}, {"train": none, "test": none}, facts, str)
    assert found["shared"]["test in train"]["persons"] == 1
    assert lines(found)[-1] == "audit: no image is there twice"


def test_the_command_prints_it_and_the_manifest_keeps_it_without_another_fingerprint(tmp_path, monkeypatch, capsys):
    arguments = "synthetic --people 5 --views 2 --height 64 --width 32 --validation 1 --workers 1 --out".split()
    monkeypatch.setattr("sys.argv", ["build.py", *arguments, str(tmp_path)])
    build()
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("audit: ")]
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    assert said == lines(manifest["audit"]) and len(said) == 3 + 3 + 1
    train = ShardSet(tmp_path, "train")
    lacks = {name: count for name, count in manifest["audit"]["missing_joints"]["train"].items() if name != "images"}
    assert list(lacks.values()) == (train.keypoints == -1).all(axis=2).sum(axis=0).tolist() and sum(lacks.values())
    del manifest["audit"]  # as an older build's
    path.write_text(json.dumps(manifest))
    assert ShardSet(tmp_path, "train").fingerprint == train.fingerprint
    assert verify(tmp_path, workers=1)[0] == []
    assert not write(plan(5, 2, 0, 64, 32, 1000, 1), tmp_path, workers=1)
