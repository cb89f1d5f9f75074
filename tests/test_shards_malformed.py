"""Documents that nobody wrote on purpose: one line from whoever reads them, never a traceback, no wait without end."""

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from launch import stage_in
from mscgan.data.annotations import HEADER, read, read_list
from mscgan.data.manifest import read_manifest
from mscgan.data.shards import ShardSet
from mscgan.errors import UserError
from shards import synthetic
from shards.photographs import photograph
from shards.verify import verify
from shards.write import write
from tests.shard_factory import write_shards
from tests.test_shards_verify import rewrite_tar

ROOT = Path(__file__).parents[1]
DEEP = "[" * 100_000
HUGE = 10**400


@pytest.fixture(autouse=True)
def no_wait_without_end():
    def stop(*_):
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def root(tmp_path):
    return write_shards(tmp_path / "shards", persons=2, views=2, tars=1, splits=("train",))


def one_line(error) -> str:
    text = str(error.value)
    assert text and "\n" not in text and len(text) < 1000, text[:2000]
    return text


def special(path: Path, kind: str) -> None:
    """Puts something that is no plain file in the place of one."""
    path.unlink(missing_ok=True)
    {"pipe": os.mkfifo, "folder": os.mkdir, "device": lambda p: os.symlink("/dev/null", p)}[kind](path)


def changed(root: Path, change) -> None:
    manifest = json.loads((root / "manifest.json").read_text())
    change(manifest)
    (root / "manifest.json").write_text(json.dumps(manifest))


# What reads manifest.json, and how. `build` is told to build into the folder.
READERS = {
    "training": lambda root: ShardSet(root, "train"),
    "submit": lambda root: read_manifest(root, "train"),
    "stage-in": lambda root: stage_in.files(stage_in.manifest_bytes(root)),
    "verify": lambda root: verify(root, workers=1),
    "build": lambda root: write(synthetic.plan(5, 2, 0, 64, 32, 2), root, workers=1),
}
TEXTS = {
    "empty": b"",
    "cut": b'{"schema": 2, "splits": {',
    "nested": DEEP.encode(),
    "nested objects": ('{"a":' * 100_000).encode(),
    "a list": b"[]",
    "null": b"null",
    "not UTF-8": b"\xff\xfe\x00\x80{}",
    "binary": bytes(range(256)) * 4,
    "digits": b"9" * 10_000,
    "another document": b'{"name": "a.jpg", "keypoints": []}',
    "a deep field": b'{"schema": 2, "source": ' + b"[" * 3000 + b"]" * 3000 + b"}",
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("text", TEXTS)
def test_what_is_no_manifest_is_one_line(root, reader, text):
    (root / "manifest.json").write_bytes(TEXTS[text])
    with pytest.raises(UserError) as error:
        READERS[reader](root)
    one_line(error)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_a_manifest_that_is_no_file_is_one_line_and_not_waited_for(root, reader, kind):
    special(root / "manifest.json", kind)
    with pytest.raises(UserError) as error:
        READERS[reader](root)
    one_line(error)


FIELDS = [
    *["schema", "dataset", "height", "width", "splits", "splits/train", "splits/train/images", "splits/train/persons"],
    *["splits/train/pairs", "splits/train/tars", "splits/train/pair_table", "splits/train/pair_table/name"],
    *["splits/train/pair_table/sha256", "splits/train/tars/0", "splits/train/tars/0/name", "splits/train/tars/0/bytes"],
    *["splits/train/tars/0/sha256", "splits/train/tars/0/images", "splits/train/tars/0/index"],
    *["splits/train/tars/0/index_sha256", "splits/train/image_table", "splits/train/image_table/name"],
    "splits/train/image_table/sha256",
]
GONE = object()
VALUES = [
    GONE,
    None,
    True,
    -1,
    1.5,
    HUGE,
    -HUGE,
    float("inf"),
    float("nan"),
    "",
    "x",
    "../x",
    "a\0b",
    "y" * 5000,
    [],
    {},
    [[]],
]
FITS = {("dataset", ""), ("dataset", "x"), ("dataset", "../x"), ("dataset", "a\0b"), ("dataset", "y" * 5000)}


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_that_is_missing_or_of_another_kind_is_one_line(root, field):
    whole = (root / "manifest.json").read_text()
    for value in VALUES:
        if isinstance(value, str) and (field, value) in FITS:
            continue
        manifest = at = json.loads(whole)
        *way, last = (int(key) if key.isdecimal() else key for key in field.split("/"))
        for key in way:
            at = at[key]
        at[last] = value
        if value is GONE:
            del at[last]
        (root / "manifest.json").write_text(json.dumps(manifest))
        for reader in ("training", "verify"):
            try:
                found = READERS[reader](root)
            except UserError as error:
                text = str(error)
                assert "\n" not in text and len(text) < 1000
                assert str(root) in text
            else:  # a fitting value that the folder contradicts
                assert reader == "verify" and len(found[0]) >= 1, (field, value)
                assert not any("\n" in fault for fault in found[0])


TABLE = io.BytesIO()
np.save(TABLE, np.array([[0, 1], [1, 0], [2, 3], [3, 2]], np.int32))
TABLE = TABLE.getvalue()


def table(array, **options) -> bytes:
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


def headed(header: str) -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + TABLE[128:]


def zipped() -> bytes:
    out = io.BytesIO()
    np.savez(out, pairs=np.zeros((4, 2), np.int32))
    return out.getvalue()


TABLES = {
    "empty": b"",
    "cut in its header": TABLE[:40],
    "cut": TABLE[:-1],
    "longer": TABLE + b"x",
    "zip": zipped(),
    "pickle": b"\x80\x04cposix\nsystem\n.",
    "objects": table(np.array([[0, 1], [None, 2]], object), allow_pickle=True),
    "int64": table(np.zeros((4, 2), np.int64)),
    "big-endian": table(np.zeros((4, 2), ">i4")),
    "columns first": table(np.zeros((4, 2), np.int32, order="F")),
    "one column": table(np.zeros(8, np.int32)),
    "other rows": table(np.zeros((3, 2), np.int32)),
    "from,to text": b"from,to\na.jpg,b.jpg\n",
    "huge shape": headed("{'descr': '<i4', 'fortran_order': False, 'shape': (4000000000, 2), }"),
    "endless shape": headed(f"{{'descr': '<i4', 'fortran_order': False, 'shape': ({'9' * 60}, 2), }}"),
    "nested header": headed("(" * 110),
    "no literal": headed("{'descr': exit(), 'fortran_order': False, 'shape': (4, 2), }"),
    "negative": table(np.array([[-1, 1], [1, 0], [2, 3], [3, 2]], np.int32)),
    "beyond": table(np.array([[2**31 - 1, 1], [1, 0], [2, 3], [3, 2]], np.int32)),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_pair_table_that_is_none_is_one_line(root, kind):
    """Its checksum fits, as if a wrong writer had made it."""
    (root / "train-pairs.npy").write_bytes(TABLES[kind])
    digest = hashlib.sha256(TABLES[kind]).hexdigest()
    changed(root, lambda manifest: manifest["splits"]["train"]["pair_table"].update(sha256=digest))
    with pytest.raises(UserError, match="train-pairs.npy") as error:
        ShardSet(root, "train")
    one_line(error)
    faults, _ = verify(root, workers=1)
    assert len(faults) == 1 and faults[0].startswith("train-pairs.npy: ") and "\n" not in faults[0]


def images(keypoints="<f4", joints=18, name="S40", person="S20", rows=4, **fill):
    array = np.zeros(rows, [("keypoints", keypoints, (joints, 2)), ("name", name), ("person", person)])
    for field, value in fill.items():
        array[field.removesuffix("_")] = value
    return table(array, allow_pickle=True)


IMAGES = {
    **{name: TABLES[name] for name in ("empty", "zip", "pickle", "int64", "no literal", "nested header")},
    "cut": images()[:-1],
    "cut in its header": images()[:60],
    "longer": images() + b"x",
    "other rows": images(rows=3),
    "doubles": images(keypoints="<f8"),
    "other joints": images(joints=17),
    "objects": images(name="O"),
    "wide characters": images(name="<U9"),
    "not finite": images(keypoints_=np.nan),
    "not UTF-8": images(name_=b"\xff\xfe"),
    "no width": images().replace(b"|S40", b"|S00"),
    "claims rows": images().replace(b"(4,)", b"(9,)"),
    "claims width": images().replace(b"|S40", b"|S99"),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_table_that_is_none_is_one_line(root, kind):
    """Its checksum fits, as if a wrong writer had made it."""
    (root / "train-images.npy").write_bytes(IMAGES[kind])
    digest = hashlib.sha256(IMAGES[kind]).hexdigest()
    changed(root, lambda manifest: manifest["splits"]["train"]["image_table"].update(sha256=digest))
    with pytest.raises(UserError, match="train-images.npy") as error:
        ShardSet(root, "train")
    one_line(error)
    faults, _ = verify(root, workers=1)
    assert len(faults) == 1 and faults[0].startswith("train-images.npy: ") and "\n" not in faults[0]


@pytest.mark.parametrize("name", ["train-00000.tar", "train-00000.idx", "train-pairs.npy", "train-images.npy"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_a_file_of_the_folder_that_is_no_file_is_one_line_and_not_waited_for(root, tmp_path, name, kind):
    special(root / name, kind)
    with pytest.raises(UserError, match=f"{name}: cannot be read") as error:
        ShardSet(root, "train")
    one_line(error)
    faults, _ = verify(root, workers=1)
    assert any(name in fault and "cannot be read" in fault for fault in faults), faults
    with pytest.raises(UserError) as error:
        stage_in.stage(root, tmp_path / "local")
    one_line(error)


def test_pairs_of_a_split_without_tars_are_one_fault_each(root):
    changed(root, lambda manifest: manifest["splits"]["train"].update(tars=[], images=0, persons=0))
    faults, _ = verify(root, workers=1)
    assert len(faults) == 5 and faults[0].startswith("train-images.npy: holds 4 records")
    assert faults[1] == "train-pairs.npy: row 0: [0, 1] is not of the split, which has no image"


RECORDS = {
    "empty": b"",
    "nested": DEEP.encode()[:60_000],
    "a list": b"[]",
    "no person": b'{"name": "a", "split": "train", "keypoints": []}',
    "huge number": json.dumps({"person": "a", "name": "a", "split": "train", "keypoints": [[HUGE, 1]] * 18}).encode(),
    "not finite": json.dumps({"person": "a", "name": "a", "split": "train", "keypoints": [[1e999, 1]] * 18}).encode(),
    "a word": json.dumps({"person": "a", "name": "a", "split": "train", "keypoints": "18"}).encode(),
    "ragged": json.dumps({"person": "a", "name": "a", "split": "train", "keypoints": [[1, 2]] * 17 + [[1]]}).encode(),
    "not UTF-8": b'{"person": "\xff"}',
}


@pytest.mark.parametrize("kind", RECORDS)
def test_an_images_record_that_is_none_is_a_fault_in_one_line(root, kind):
    rewrite_tar(root, lambda data: data | {"train_0000_000001.json": RECORDS[kind]})
    faults, _ = verify(root, workers=1)
    assert any(fault.startswith("train-00000.tar:train_0000_000001: ") for fault in faults), faults
    assert all("\n" not in fault and len(fault) < 1000 for fault in faults)


def test_a_tar_of_random_damage_is_faults_and_never_a_traceback(root):
    path = root / "train-00000.tar"
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(150):
        data = bytearray(whole)
        for at in rng.integers(0, 512, 3):  # of a header
            data[512 * int(rng.integers(len(data) // 512)) + int(at)] = int(rng.integers(256))
        path.write_bytes(data)
        assert verify(root, workers=1)[0]


JOINTS = str([10] * 18)
GOOD = f"a.jpg: {JOINTS}: {JOINTS}"
ROWS = {
    "nested": f"b.jpg: {DEEP}: {JOINTS}",
    "huge": f"b.jpg: {JOINTS.replace('10', str(HUGE), 1)}: {JOINTS}",
    "more digits than Python reads": f"b.jpg: {JOINTS.replace('10', '9' * 5000, 1)}: {JOINTS}",
    "infinite": f"b.jpg: {JOINTS.replace('10', '1e999', 1)}: {JOINTS}",
    "negative": f"b.jpg: {JOINTS.replace('10', '-5', 1)}: {JOINTS}",
    "an object": f"b.jpg: {{}}: {JOINTS}",
    "foreign": "the quick brown fox",
    "a pair": "a.jpg,b.jpg",
    "binary": "\0\1\2:\3:\4",
}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_a_keypoint_file_that_is_none_is_named_in_one_line(tmp_path, row):
    path = tmp_path / "a.csv"
    path.write_text(f"{HEADER}\n{GOOD}\n{ROWS[row]}\n")
    with pytest.raises(UserError, match="a.csv line 3: ") as error:
        read(path, 128, 64)
    one_line(error)


@pytest.mark.parametrize("row", ["a.jpg", "a.jpg,b.jpg,c.jpg", ",", "a.jpg;b.jpg", GOOD, "x" * 100_000, "\0"])
def test_a_row_of_a_pair_list_that_is_none_is_named_in_one_line(tmp_path, row):
    path = tmp_path / "a.csv"
    path.write_text(f"from,to\na.jpg,b.jpg\n{row}\n")
    with pytest.raises(UserError, match="a.csv line 3: ") as error:
        read_list(path)
    one_line(error)


@pytest.mark.parametrize("reads", [lambda path: read(path, 128, 64), read_list], ids=["keypoints", "pairs"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "empty", "not UTF-8", "missing"])
def test_a_list_that_is_no_text_file_is_one_line_and_not_waited_for(tmp_path, reads, kind):
    path = tmp_path / "a.csv"
    if kind in ("pipe", "folder", "device"):
        special(path, kind)
    elif kind != "missing":
        path.write_bytes(b"" if kind == "empty" else b"\xff\xfe\x80")
    with pytest.raises(UserError, match="a.csv") as error:
        reads(path)
    one_line(error)


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_a_picture_that_is_no_file_is_one_line_and_not_waited_for(tmp_path, kind):
    special(tmp_path / "a.jpg", kind)
    with pytest.raises(UserError, match="a.jpg cannot be read") as error:
        photograph((str(tmp_path / "a.jpg"), "a.jpg", []), 128, 64)
    one_line(error)


def test_the_notes_of_a_stopped_build_that_are_none_are_made_again(tmp_path):
    plan = synthetic.plan(5, 2, 0, 64, 32, 2)
    write(plan, tmp_path / "whole", workers=1)
    for text in ("", DEEP, "[]", '{"made_from": 3}', "null"):
        out = tmp_path / hashlib.sha256(text.encode()).hexdigest()[:8]
        (out / ".build").mkdir(parents=True)
        source = json.loads((tmp_path / "whole/manifest.json").read_text())["source"]
        (out / ".build/plan.json").write_text(json.dumps({"source": source}))
        (out / ".build/train-00000.tar.json").write_text(text)
        assert write(plan, out, workers=1)
        assert (out / "manifest.json").read_bytes() == (tmp_path / "whole/manifest.json").read_bytes()


def test_the_commands_end_with_exit_code_2_and_one_line(root):
    (root / "manifest.json").write_text(DEEP)
    for command in (["shards/verify.py", root], ["launch/stage_in.py", root, root / "local"]):
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 2 and re.fullmatch(r"error: .*manifest.json: not JSON .*\n", done.stderr), done.stderr
