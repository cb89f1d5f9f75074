"""A folder written by the standard library is read back as it was written; every damage is one clear mistake."""

import hashlib
import io
import json

import numpy as np
import pytest
from PIL import Image

from mscgan.data.shards import ShardSet
from mscgan.errors import UserError
from tests.shard_factory import jpeg, keypoints, write_shards


@pytest.fixture
def root(tmp_path):
    return write_shards(tmp_path / "shards")


def edit(root, change):
    """Rewrites manifest.json after change(manifest)."""
    manifest = json.loads((root / "manifest.json").read_text())
    change(manifest)
    (root / "manifest.json").write_text(json.dumps(manifest))


def test_images_people_keypoints_and_pairs_are_those_written(root):
    shards = ShardSet(root, "train")
    assert (shards.height, shards.width, shards.dataset, len(shards)) == (64, 32, "toy", 12)
    assert [shards.read(i) for i in range(12)] == [jpeg(i, 64, 32) for i in range(12)]
    assert Image.open(io.BytesIO(shards.read(3))).size == (32, 64)
    assert shards.persons == [f"train{i // 3:04d}" for i in range(12)]
    assert shards.names == [f"train_{i // 3:04d}_{i:06d}_original.jpg" for i in range(12)]
    assert shards.keypoints.dtype == np.float32
    assert np.array_equal(shards.keypoints, np.stack([keypoints(i, 64, 32) for i in range(12)]))
    assert shards.pairs.dtype == np.int32 and shards.pairs[:3].tolist() == [[0, 1], [0, 2], [1, 0]]
    assert all(shards.persons[i] == shards.persons[j] for i, j in shards.pairs)
    assert shards.keys[7] == "train_0002_000007" and shards.locate(7) == "train-00001.tar:train_0002_000007"


def test_the_fingerprint_follows_content_and_not_place(root, tmp_path):
    first = ShardSet(root, "train").fingerprint
    assert ShardSet(write_shards(tmp_path / "again"), "train").fingerprint == first
    other = write_shards(tmp_path / "other", images={0: jpeg(99, 64, 32)})
    assert len({first, ShardSet(root, "test").fingerprint, ShardSet(other, "train").fingerprint}) == 3


def test_the_splits_there_are_named(root):
    with pytest.raises(UserError, match="no split 'val'; it has test, train"):
        ShardSet(root, "val")


def test_no_folder_a_missing_and_a_half_written_one_are_told_apart(root, tmp_path):
    with pytest.raises(UserError, match="no shard folder is given; set data.root"):
        ShardSet("", "train")
    with pytest.raises(UserError, match="no shard folder"):
        ShardSet(tmp_path / "nowhere", "train")
    (root / "manifest.json").unlink()
    with pytest.raises(UserError, match="has no manifest.json"):
        ShardSet(root, "train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(schema=1), "has schema 1, this version reads 2"),
        (lambda m: m.pop("height"), "height is missing, expected a whole number from 1 to 65535"),
        (lambda m: m["splits"].update(train=[]), r"splits.train is \[\], expected an object"),
        (lambda m: m["splits"]["train"].update(images=13), "13 images in 'train'"),
        (lambda m: m["splits"]["train"].update(pairs=7), r"holds int32 \(24, 2\) in 192 bytes, expected \(7, 2\)"),
        (lambda m: m["splits"]["train"]["tars"][0].update(images=5), "lists 6 images, manifest.json 5"),
        (lambda m: m["splits"]["train"]["tars"][0].update(name="../secret.tar"), "expected the name of a file"),
        (lambda m: m["splits"]["train"]["pair_table"].update(name="/etc/hosts"), "expected the name of a file"),
    ],
)
def test_a_wrong_manifest_is_refused(root, change, message):
    edit(root, change)
    with pytest.raises(UserError, match=message):
        ShardSet(root, "train")


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_manifest_that_is_no_object_is_refused(root, text):
    (root / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="manifest.json"):
        ShardSet(root, "train")


def test_a_changed_tar_index_or_pair_table_is_refused_by_name(root):
    for name, message in (
        ("train-00001.tar", "has .* bytes, manifest.json says"),
        ("train-00000.idx", "sha256 differs"),
        ("train-pairs.npy", "sha256 differs"),
        ("train-images.npy", "sha256 differs"),
    ):
        whole = (root / name).read_bytes()
        for data in (whole[:-1], None):
            (root / name).unlink() if data is None else (root / name).write_bytes(data)
            with pytest.raises(UserError, match=f"{name}: (.*{message}|is missing).*verify.py"):
                ShardSet(root, "train")
        (root / name).write_bytes(whole)
    ShardSet(root, "train")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("jpg 512 {huge} a.jpg json 1536 10 a.json", "outside the tar"),
        ("jpg -1 5 a.jpg json 1536 10 a.json", "outside the tar"),
        ("jpg 512 5 a b.jpg json 1536 10 a.json", "is not one jpg and one json"),
        ("png 512 5 a.png json 1536 10 a.json", "is not one jpg and one json"),
        ("jpg x 5 a.jpg json 1536 10 a.json", "invalid literal"),
    ],
)
def test_an_index_that_leads_astray_is_refused(root, line, message):
    _replace_index(root, line.format(huge=10**6))
    with pytest.raises(UserError, match=f"train-00000.idx: .*{message}"):
        ShardSet(root, "train")


def test_keypoints_of_a_wrong_count_are_refused(root, monkeypatch):
    monkeypatch.setattr("tests.shard_factory.keypoints", lambda seed, height, width: np.zeros((17, 2)))
    write_shards(root)
    with pytest.raises(UserError, match=r"train-images.npy: begins with .*\(17, 2\).*\(18, 2\)"):
        ShardSet(root, "train")


def test_a_tar_cut_while_it_is_read_is_reported(root):
    shards = ShardSet(root, "train")
    with open(root / "train-00001.tar", "r+b") as file:
        file.truncate(1000)
    with pytest.raises(UserError, match="train-00001.tar:.*the index says"):
        shards.read(11)


def _replace_index(root, line):
    path = root / "train-00000.idx"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, *lines[2:]]) + "\n")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    edit(root, lambda m: m["splits"]["train"]["tars"][0].update(index_sha256=sha256))
