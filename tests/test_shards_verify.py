"""verify.py names each fault by file and key: every kind of damage, one at a time."""

import contextlib
import hashlib
import io
import json
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from mscgan.errors import UserError
from shards import verify as command
from shards.index import index_text
from shards.synthetic import plan
from shards.verify import verify
from shards.write import write


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """8 train images of 4 people, 2 test images of one."""
    folder = tmp_path_factory.mktemp("shards") / "good"
    write(plan(5, 2, seed=0, height=64, width=32, test_pairs=2), folder, workers=1)
    return folder


@pytest.fixture
def shards(good, tmp_path):
    return shutil.copytree(good, tmp_path / "shards")


def faults(folder):
    return verify(folder, workers=1)[0]


def edit_manifest(folder, change):
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def rewrite_tar(folder, change):
    """Changes the train tar's members (name -> bytes) and makes index and manifest agree, as a wrong writer would."""
    path = folder / "train-00000.tar"
    with tarfile.open(path) as tar:
        data = {member.name: tar.extractfile(member).read() for member in tar}
    data = change(data) or data
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in data.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    index = index_text(path).encode()
    path.with_suffix(".idx").write_bytes(index)
    images = np.load(folder / "train-images.npy")
    for row, name in zip(images, [name for name in data if name.endswith(".json")]):
        with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):  # the test's fault
            about = json.loads(data[name])
            row["name"], row["person"] = about["name"].encode(), about["person"].encode()
            row["keypoints"] = about["keypoints"]
    np.save(folder / "train-images.npy", images)

    def agree(manifest):
        table = (folder / "train-images.npy").read_bytes()
        manifest["splits"]["train"]["image_table"]["sha256"] = hashlib.sha256(table).hexdigest()
        record = manifest["splits"]["train"]["tars"][0]
        record["bytes"] = path.stat().st_size
        record["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        record["index_sha256"] = hashlib.sha256(index).hexdigest()

    edit_manifest(folder, agree)


def change_json(key, **values):
    def change(data):
        data[f"{key}.json"] = json.dumps({**json.loads(data[f"{key}.json"]), **values}).encode()

    return change


def test_good_shards_have_no_fault(shards, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["verify.py", str(shards), "--workers", "1"])
    assert command.main() == 0
    assert "no fault" in capsys.readouterr().out


def test_the_command_prints_the_fault_and_exits_1(shards, monkeypatch, capsys):
    (shards / "test-00000.tar").unlink()
    monkeypatch.setattr("sys.argv", ["verify.py", str(shards), "--workers", "1"])
    assert command.main() == 1
    assert "fault: test-00000.tar: missing" in capsys.readouterr().out


def test_what_is_no_folder_of_shards_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match="no shard folder"):
        verify(tmp_path / "none", workers=1)
    with pytest.raises(UserError, match="no manifest.json"):
        verify(tmp_path, workers=1)


def test_a_flipped_bit_in_an_image_is_found_by_the_checksum(shards):
    path = shards / "train-00000.tar"
    data = bytearray(path.read_bytes())
    data[900] ^= 1
    path.write_bytes(data)
    assert "train-00000.tar: its bytes do not fit the checksum in manifest.json" in faults(shards)


def test_a_cut_tar_is_found(shards):
    path = shards / "train-00000.tar"
    path.write_bytes(path.read_bytes()[:9000])
    found = faults(shards)
    assert any(fault.startswith("train-00000.tar: 9000 bytes; manifest.json says") for fault in found)
    assert any("images; manifest.json says 8" in fault for fault in found)


def other_size(data):
    file = io.BytesIO()
    Image.new("RGB", (33, 64)).save(file, "JPEG")
    data["p00001_v000.jpg"] = file.getvalue()


def enormous(data):
    """The header claims 60,000 x 60,000 pixels."""
    at = data["p00001_v000.jpg"].index(b"\xff\xc0") + 5
    jpeg = bytearray(data["p00001_v000.jpg"])
    jpeg[at : at + 4] = (60_000).to_bytes(2, "big") * 2
    data["p00001_v000.jpg"] = bytes(jpeg)


def cut_image(data):
    data["p00001_v000.jpg"] = data["p00001_v000.jpg"][:700]


def png(data):
    file = io.BytesIO()
    Image.new("RGB", (32, 64)).save(file, "PNG")
    data["p00001_v000.jpg"] = file.getvalue()


def no_json(data):
    del data["p00001_v000.json"]


def pickle(data):
    data["p00001_v000.pyd"] = b"cos\nsystem\n(S'true'\ntR."


def broken_json(data):
    data["p00001_v000.json"] = b"{"


def scattered(data):
    return {name: data[name] for name in sorted(data, key=lambda name: name[6:])}


KEY = "train-00000.tar:p00001_v000"
JOINTS = [[5, 5]] * 18


@pytest.mark.parametrize(
    "change, fault",
    [
        (other_size, f"{KEY}: bad image: 64x33 (height x width), expected 64x32"),
        (enormous, f"{KEY}: bad image: "),
        (cut_image, f"{KEY}: bad image: "),
        (png, f"{KEY}: bad image: "),
        (no_json, f"{KEY}: has no .json"),
        (broken_json, f"{KEY}: bad .json"),
        (pickle, "train-00000.tar: member 'p00001_v000.pyd' of 23 bytes does not belong there"),
        (
            change_json("p00001_v000", keypoints=[[32, 5], *JOINTS[1:]]),
            f"{KEY}: keypoint 0 at x 32, y 5 is outside 64x32",
        ),
        (
            change_json("p00001_v000", keypoints=[[-1, 5], *JOINTS[1:]]),
            f"{KEY}: keypoint 0 at x -1, y 5 is outside 64x32",
        ),
        (change_json("p00001_v000", keypoints=JOINTS[1:]), f"{KEY}: bad .json: ValueError: 17 keypoints; expected 18"),
        (change_json("p00001_v000", keypoints=[["5", "5"], *JOINTS[1:]]), f"{KEY}: bad .json: TypeError"),
        (change_json("p00001_v000", split="test"), f"{KEY}: bad .json: ValueError: name 'p00001_v000.jpg', person"),
        (change_json("p00001_v000", person="p00000"), "train-pairs.npy: row 2: train-00000.tar:p00001_v000 and"),
        (scattered, "person p00000: the images are not together"),
    ],
    ids=lambda value: value.__name__ if callable(value) else value[:60],
)
def test_a_fault_that_agrees_with_its_checksum_is_found_too(shards, change, fault):
    rewrite_tar(shards, change)
    found = faults(shards)
    assert any(text.startswith(fault) for text in found), found


def test_a_link_in_a_tar_is_not_followed(shards):
    with tarfile.open(shards / "train-00000.tar", "w") as tar:
        member = tarfile.TarInfo("p00000_v000.jpg")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    assert "train-00000.tar: member 'p00000_v000.jpg' is not a plain file" in faults(shards)


def test_a_wrong_index_is_found(shards):
    path = shards / "train-00000.idx"
    path.write_text(path.read_text().replace("jpg 512", "jpg 513", 1))
    assert faults(shards) == ["train-00000.tar: train-00000.idx is not its index"]
    path.unlink()
    assert faults(shards) == ["train-00000.tar: its index train-00000.idx is missing"]


@pytest.mark.parametrize("table", ["train-images.npy", "train-pairs.npy"])
def test_a_missing_table_is_named_also_beside_a_damaged_tar(shards, table):
    (shards / table).unlink()
    assert faults(shards) == [f"{table}: cannot be read: No such file or directory"]
    (shards / "train-00000.tar").unlink()
    assert f"{table}: is missing" in faults(shards)


@pytest.mark.parametrize(
    "row, fault",
    [
        ([0, 2], "row 3: train-00000.tar:p00000_v000 and train-00000.tar:p00001_v000 are not two images of one person"),
        ([1, 1], "row 3: train-00000.tar:p00000_v001 and train-00000.tar:p00000_v001 are not two images of one person"),
        ([0, 8], "row 3: [0, 8] is not in 0-7"),
        ([-1, 0], "row 3: [-1, 0] is not in 0-7"),
    ],
)
def test_a_pair_of_two_persons_or_of_none_is_found(shards, row, fault):
    pairs = np.load(shards / "train-pairs.npy")
    pairs[3] = row
    np.save(shards / "train-pairs.npy", pairs)
    assert faults(shards) == ["train-pairs.npy: its bytes do not fit the checksum in manifest.json"]
    digest = hashlib.sha256((shards / "train-pairs.npy").read_bytes()).hexdigest()
    edit_manifest(shards, lambda manifest: manifest["splits"]["train"]["pair_table"].update(sha256=digest))
    assert faults(shards) == [f"train-pairs.npy: {fault}"]


@pytest.mark.parametrize(
    ("field", "value"), [("name", b"other.jpg"), ("person", b"p00009"), ("keypoints", np.full((18, 2), 3))]
)
def test_an_image_of_which_table_and_tar_say_different_things_is_found(shards, field, value):
    images = np.load(shards / "train-images.npy")
    images[field][5] = value
    np.save(shards / "train-images.npy", images)
    assert faults(shards) == ["train-images.npy: its bytes do not fit the checksum in manifest.json"]
    digest = hashlib.sha256((shards / "train-images.npy").read_bytes()).hexdigest()
    edit_manifest(shards, lambda manifest: manifest["splits"]["train"]["image_table"].update(sha256=digest))
    assert faults(shards) == ["train-images.npy: row 5 is not what train-00000.tar:p00002_v001.json says"]


def test_a_person_in_two_splits_and_a_key_twice_are_found(shards):
    rewrite_tar(shards, change_json("p00000_v000", person="p00004"))
    assert "test: person 'p00004' is also in train" in faults(shards)
    edit_manifest(shards, lambda manifest: manifest["splits"].update(test=manifest["splits"]["train"]))
    assert "train-00000.tar:p00001_v001: the key is also in train-00000.tar" in faults(shards)


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.clear(),
        lambda manifest: manifest.update(schema=1),
        lambda manifest: manifest.update(splits={}),
        lambda manifest: manifest.update(height="64"),
        lambda manifest: manifest["splits"]["train"].pop("pair_table"),
        lambda manifest: manifest["splits"]["train"]["tars"][0].update(name="../train-00000.tar"),
        lambda manifest: manifest["splits"]["train"]["tars"][0].update(bytes=None),
    ],
)
def test_a_manifest_that_is_none_is_the_users_mistake(shards, change):
    edit_manifest(shards, change)
    with pytest.raises(UserError, match="manifest.json.*build the folder again"):
        faults(shards)


def test_counts_of_the_manifest_are_checked(shards):
    edit_manifest(shards, lambda manifest: manifest["splits"]["train"].update(persons=3))
    assert faults(shards) == ["manifest.json: train has 8 images of 3 persons; the tars hold 8 of 4"]
