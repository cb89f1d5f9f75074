"""Shards of photographs: real files where they are there, and small invented ones for everything else."""

import io
import json
import struct
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mscgan.data.annotations import HEADER
from mscgan.errors import UserError
from shards import deepfashion, market1501
from shards import write as writer
from shards.photographs import MISSING, photograph, plan
from shards.verify import verify
from shards.write import write

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared/data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="no photographs in ../shared/data")

XS = list(range(1, 19))
YS = list(range(21, 39))
NO_HIP = [x if joint != 8 else -1 for joint, x in enumerate(XS)]


def jpeg(height=128, width=64, mode="RGB", seed=0, **options):
    noise = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def picture(name):
    """A picture that no other name has."""
    return jpeg(seed=zlib.crc32(name.encode()))


def annotate(path, rows):
    path.write_text("\n".join([HEADER, *(f"{name}: {json.dumps(ys)}: {json.dumps(xs)}" for name, ys, xs in rows)]))
    return path


@pytest.fixture
def market(tmp_path):
    """Pictures and keypoints of two persons, with one missing, one unusable, one nobody, and one not annotated."""
    images = tmp_path / "bounding_box_train"
    images.mkdir()
    for name in ("0007_c1.jpg", "0007_c2.jpg", "0007_c3.jpg", "0002_c1.jpg", "-1_c1.jpg", "0009_c1.jpg"):
        (images / name).write_bytes(picture(name))
    names = ["0007_c1.jpg", "0002_c1.jpg", "-1_c1.jpg", "0007_c2.jpg", "0002_c2.jpg", "0007_c4.jpg"]
    rows = [(name, YS, [x + line for x in XS]) for line, name in enumerate(names)] + [
        ("0007_c3.jpg", [-1 if x == -1 else y for x, y in zip(NO_HIP, YS, strict=True)], NO_HIP)
    ]
    return images, annotate(tmp_path / "train.csv", rows)


def make(images, csv, lists=(), draw=None, **annotations):
    return plan(market1501, images, annotations or {"train": csv}, list(lists), draw, 0)


def test_images_without_a_file_a_person_or_hips_are_left_out_and_counted(market):
    made, report = make(*market)
    assert [image.key for image in made.splits["train"].images] == ["0007_c1", "0007_c2", "0002_c1"]
    assert made.splits["train"].pairs.tolist() == [[0, 1], [1, 0]]
    assert made.notes == {MISSING: "0002_c2.jpg\n0007_c4.jpg\n"}
    assert "train: 7 rows, 5 usable" in report[0] and "2 persons, 8 pairs" in report[0]
    assert "2 images missing" in report[2] and "0002_c2.jpg" in report[2]
    assert report[3].startswith("1 pictures") and "ignored" in report[3]


def test_the_tar_holds_the_files_own_bytes_and_keypoints_as_x_y(market, tmp_path):
    write(make(*market)[0], tmp_path / "out", workers=1)
    assert verify(tmp_path / "out", workers=1)[0] == []
    assert (tmp_path / "out" / MISSING).read_text() == "0002_c2.jpg\n0007_c4.jpg\n"
    with tarfile.open(tmp_path / "out/train-00000.tar") as tar:
        assert tar.extractfile("0007_c2.jpg").read() == picture("0007_c2.jpg")
        about = json.load(tar.extractfile("0007_c2.json"))
    assert about == {
        "name": "0007_c2.jpg",
        "person": "0007",
        "split": "train",
        "keypoints": [[x + 3, y] for x, y in zip(XS, YS, strict=True)],  # of the annotation's fourth row
    }


def test_a_test_annotation_alone_makes_a_test_split_alone(market):
    made, _ = make(market[0], None, test=market[1])
    assert list(made.splits) == ["test"]


def test_a_pair_list_serves_the_split_that_names_its_images(market, tmp_path):
    images, train = market
    for name in ("0100_c1.jpg", "0100_c2.jpg"):
        (images / name).write_bytes(jpeg())
    test = annotate(tmp_path / "test.csv", [(f"0100_c{c}.jpg", YS, XS) for c in (1, 2)])
    listed = tmp_path / "list.csv"
    listed.write_text("from,to\n0100_c2.jpg,0100_c1.jpg\n")
    made, _ = make(images, None, [listed], train=train, test=test)
    assert made.splits["test"].pairs.tolist() == [[1, 0]]
    assert made.splits["train"].pairs.tolist() == [[0, 1], [1, 0]]
    listed.write_text("from,to\n0007_c2.jpg,0007_c1.jpg\n0007_c2.jpg,0007_c4.jpg\n0007_c1.jpg,0007_c3.jpg\n")
    made, report = make(images, None, [listed], draw=1, train=train, test=test)
    assert made.splits["train"].pairs.tolist() == [[1, 0]]  # 0007_c4 has no file, 0007_c3 no hip
    assert len(made.splits["test"].pairs) == 1
    assert "1 of 3 pairs in list.csv name unusable images: left out" in report


@pytest.mark.parametrize(
    "rows, words",
    [
        ("0500_c1.jpg,0500_c2.jpg", "line 2: 0500_c1.jpg is not in"),
        ("0007_c1.jpg,0007_c2.jpg\n0007_c1.jpg,0500_c2.jpg", "line 3: 0500_c2.jpg is not in"),
        ("0007_c1.jpg,0002_c1.jpg", "line 2: 0007_c1.jpg and 0002_c1.jpg are not two images of one person"),
        ("0007_c1.jpg,0007_c1.jpg", "line 2: .* are not two images of one person"),
        ("", "has no pairs"),
    ],
)
def test_a_pair_list_that_does_not_fit_is_refused(market, tmp_path, rows, words):
    listed = tmp_path / "list.csv"
    listed.write_text(f"from,to\n{rows}\n")
    with pytest.raises(UserError, match=words):
        make(*market, [listed])


def test_a_person_in_both_splits_is_refused(market, tmp_path):
    test = annotate(tmp_path / "test.csv", [("0007_c8.jpg", YS, XS), ("0007_c9.jpg", YS, XS)])
    with pytest.raises(UserError, match="0007 for one, are in both annotations"):
        make(market[0], None, train=market[1], test=test)


def test_a_folder_without_the_images_is_refused(market, tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        make(tmp_path / "none", market[1])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no .jpg file of market1501, but nothing; the pictures must lie in it, or"):
        make(tmp_path / "empty", market[1])
    (tmp_path / "empty/a.png").touch()
    with pytest.raises(UserError, match="no .jpg file of market1501, but a.png"):
        make(tmp_path / "empty", market[1])


def test_why_nothing_can_be_built_is_said(market, tmp_path):
    images, csv = market
    for file in images.glob("0007*"):
        file.unlink()
    with pytest.raises(
        UserError,
        match="no pair to build; train: none of 8 pairs has both its images: 1 images of 1 persons are in .*, 4 that "
        "train.csv names are missing; fetch more of them",
    ):
        make(images, csv)
    (images / "0002_c1.jpg").unlink()
    with pytest.raises(UserError, match="train: 0 of the 5 images that train.csv names, 0007_c1.jpg for one, are in"):
        make(images, csv)
    annotate(csv, [("0001_c1.jpg", YS, XS), ("0002_c1.jpg", YS, XS)])
    (images / "0001_c1.jpg").write_bytes(jpeg())
    with pytest.raises(UserError, match="train: no person has two usable images: 1 images of 1 persons are in"):
        make(images, csv)
    annotate(csv, [("-1_c1.jpg", YS, XS), ("0001_c1.jpg", [-1] * 18, [-1] * 18), ("0001_c2.jpg", [-1] * 18, [-1] * 18)])
    with pytest.raises(UserError, match="train: 0 of 3 rows of train.csv are usable: 2 lack a hip or a shoulder"):
        make(images, csv)


def test_a_split_without_a_pair_is_left_out_with_its_reason(market, tmp_path):
    test = annotate(tmp_path / "test.csv", [("0100_c1.jpg", YS, XS), ("0100_c2.jpg", YS, XS)])
    made, report = make(market[0], None, train=market[1], test=test)
    assert list(made.splits) == ["train"]
    assert report[-1].startswith("the test split has no pair and is left out: 0 of the 2 images that test.csv names")


def named(folder, path, camera, persons=(1, 2)):
    """A keypoint file of two pictures a person, which lie in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{person:04d}_c{camera}{n}.jpg" for person in persons for n in (1, 2)]
    for name in names:
        (folder / name).write_bytes(jpeg())
    return annotate(path, [(name, YS, XS) for name in names])


def test_the_test_annotation_given_as_that_of_train_is_refused(tmp_path):
    images = tmp_path / "Market"
    first = named(images / "bounding_box_train", tmp_path / "first.csv", 1)
    second = named(images / "bounding_box_test", tmp_path / "second.csv", 2, persons=(3, 4))
    make(images, None, train=first, test=second)
    for annotations in ({"train": second, "test": first}, {"train": second}):
        with pytest.raises(UserError, match="second.csv is of the test split, by the folder of its pictures; give it "):
            make(images, None, **annotations)
    with pytest.raises(UserError, match="second.csv is of the test split, by the folder"):
        make(images / "bounding_box_test", second)
    with pytest.raises(UserError, match="annotation-test.csv is of the test split, by its name"):
        make(images, first.rename(tmp_path / "annotation-test.csv"))


def test_junk_shows_which_annotation_is_of_test(tmp_path):
    images = tmp_path / "all"
    first = named(images, tmp_path / "first.csv", 1)
    second = named(images, tmp_path / "second.csv", 2, persons=(3, 4))
    make(images, None, train=second, test=first)
    with second.open("a") as file:
        file.write(f"\n0000_c1.jpg: {YS}: {XS}")
    make(images, None, train=first, test=second)
    with pytest.raises(
        UserError, match="second.csv is of the test split, by its junk and .*, and .*first.csv with --ann"
    ):
        make(images, None, train=second, test=first)


def test_far_more_persons_for_testing_are_warned_of(tmp_path):
    few = named(tmp_path / "all", tmp_path / "few.csv", 1, persons=(1,))
    many = named(tmp_path / "all", tmp_path / "many.csv", 1, persons=(2, 3, 4))
    assert "the wrong way round?" in make(tmp_path / "all", None, train=few, test=many)[1][-1]
    assert not any("wrong" in line for line in make(tmp_path / "all", None, train=many, test=few)[1])


def test_a_failed_build_goes_on_when_the_picture_is_mended_or_removed(market, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "IMAGES_PER_TAR", 2)
    images, _ = market
    names = [f"{person:04d}_c{camera}.jpg" for person in (1, 2, 3, 4) for camera in (1, 2)]
    for name in names:
        (images / name).write_bytes(picture(name))
    csv, out = annotate(tmp_path / "people.csv", [(name, YS, XS) for name in names]), tmp_path / "out"
    (images / names[4]).write_bytes(b"<html>404</html>")
    with pytest.raises(UserError, match="0003_c1.jpg is not a whole JPEG"):
        write(make(images, csv)[0], out, workers=1)
    kept = (out / "train-00000.tar").stat()
    (images / names[2]).unlink()  # in a tar that is finished; its person has no pair left
    (images / names[4]).write_bytes(picture(names[4]))
    with pytest.raises(UserError, match="another configuration .validation."):
        write(plan(market1501, images, {"train": csv}, [], None, 0, 1)[0], out, workers=1)
    assert write(make(images, csv)[0], out, workers=1)
    assert verify(out, workers=1)[0] == []
    assert (out / "train-00000.tar").stat().st_ino == kept.st_ino
    write(make(images, csv)[0], tmp_path / "at-once", workers=1)
    files = [{p.name: p.read_bytes() for p in folder.iterdir()} for folder in (out, tmp_path / "at-once")]
    assert files[0] == files[1]
    assert not write(make(images, csv)[0], out, workers=1)
    (images / names[2]).write_bytes(picture(names[2]))
    with pytest.raises(UserError, match="the pictures are not those any more that .* was built from"):
        write(make(images, csv)[0], out, workers=1)


def test_other_contents_of_the_same_size_are_another_build(market, tmp_path):
    images, csv = market
    first, _ = make(images, csv)
    write(first, tmp_path / "out", workers=1)
    path = images / "0007_c2.jpg"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    second, _ = make(images, csv)
    assert first.files["images_sha256"] != second.files["images_sha256"]
    with pytest.raises(UserError, match="the pictures are not those any more that .* was built from"):
        write(second, tmp_path / "out", workers=1)
    write(second, tmp_path / "other", workers=1)
    manifests = [json.loads((tmp_path / name / "manifest.json").read_text())["source"] for name in ("out", "other")]
    assert len({source["images_sha256"] for source in manifests}) == 2


def test_tars_that_a_mended_build_does_not_need_are_removed(market, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "IMAGES_PER_TAR", 2)
    images, _ = market
    csv = named(images, tmp_path / "people.csv", 1, persons=(1, 2, 3))
    whole_put = writer.put

    def full(path, data):
        if path.name == "train-pairs.npy":
            raise OSError(28, "No space left on device")
        whole_put(path, data)

    monkeypatch.setattr(writer, "put", full)
    with pytest.raises(UserError, match="stopped: No space left on device; mend that .* it goes on"):
        write(make(images, csv)[0], tmp_path / "out", workers=1)
    assert (tmp_path / "out/train-00002.tar").exists()
    monkeypatch.setattr(writer, "put", whole_put)
    for file in images.glob("0003*"):
        file.unlink()
    assert write(make(images, csv)[0], tmp_path / "out", workers=1)
    assert not list((tmp_path / "out").glob("train-00002.*")) and verify(tmp_path / "out", workers=1)[0] == []


def test_deepfashion_flat_and_tree_make_the_same_shards(tmp_path):
    tree = {
        "WOMEN/Dresses/id_00000002/02_1_front.jpg": "fashionWOMENDressesid0000000202_1front.jpg",
        "WOMEN/Dresses/id_00000002/02_2_side.jpg": "fashionWOMENDressesid0000000202_2side.jpg",
        "WOMEN/Dresses/id_00000002/03_1_front.jpg": "fashionWOMENDressesid0000000203_1front.jpg",  # another colour
    }
    for number, (path, name) in enumerate(tree.items()):
        (tmp_path / "tree/img" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "flat").mkdir(exist_ok=True)
        for file in (tmp_path / "tree/img" / path, tmp_path / "flat" / name):
            file.write_bytes(jpeg(256, 256, seed=number))
    csv = annotate(tmp_path / "test.csv", [(name, YS, XS) for name in tree.values()])
    for kind in ("tree", "flat"):
        made, _ = plan(deepfashion, tmp_path / kind, {"test": csv}, [], None, 0)
        write(made, tmp_path / f"{kind}-out", workers=1)
        assert verify(tmp_path / f"{kind}-out", workers=1)[0] == []
        assert made.splits["test"].pairs.tolist() == [[0, 1], [1, 0]]
    files = [{p.name: p.read_bytes() for p in (tmp_path / f"{kind}-out").iterdir()} for kind in ("tree", "flat")]
    assert files[0] == files[1]


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_jpeg_that_is_not_rgb_is_stored_as_rgb(tmp_path, mode):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(mode=mode))
    stored = Image.open(io.BytesIO(photograph((str(path), "a.jpg", []), 128, 64).jpeg))
    assert (stored.format, stored.mode, stored.size) == ("JPEG", "RGB", (64, 128))


def test_a_jpeg_with_an_exif_turn_is_stored_without_it(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(exif=exif))
    stored = Image.open(io.BytesIO(photograph((str(path), "a.jpg", []), 128, 64).jpeg))
    assert stored.size == (64, 128) and not stored.getexif()


def bomb():
    """A PNG of 100 bytes that claims 30,000 x 30,000 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data, words",
    [
        (jpeg(64, 64), "is 64x64 .height x width.; expected 128x64"),
        (jpeg()[:1500], "is not a whole JPEG"),
        (b"<html>404</html>", "is not a whole JPEG"),
        (b"", "is not a whole JPEG"),
        (bomb(), "is not a whole JPEG"),
        (b"GIF89a" + bytes(100), "is not a whole JPEG"),
        (bytes(16 * 2**20 + 1), "16,777,217 bytes, where 16,777,216 are the most"),
    ],
    ids=["size", "cut", "html", "empty", "bomb", "gif", "huge"],
)
def test_a_bad_picture_is_named_and_ends_the_build(market, tmp_path, data, words):
    images, csv = market
    (images / "0007_c2.jpg").write_bytes(data)
    with pytest.raises(UserError, match=f"0007_c2.jpg .*{words}|0007_c2.jpg {words}"):
        write(make(images, csv)[0], tmp_path / "out", workers=1)
    assert not (tmp_path / "out/manifest.json").exists()


def test_a_mistake_is_one_line_and_exit_code_2_also_from_a_worker_process(market, tmp_path):
    images, csv = market
    (images / "0007_c2.jpg").write_bytes(jpeg()[:1500])
    command = [sys.executable, "shards/build.py", "market1501", "--images", images, "--annotations", csv]
    done = subprocess.run(
        [*command, "--workers", "2", "--out", tmp_path / "out"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    errors = [
        line
        for line in done.stderr.replace("\r", "\n").splitlines()
        if line and "image/s" not in line and "?" not in line
    ]
    assert len(errors) == 1 and errors[0].startswith("error: ") and "0007_c2.jpg is not a whole JPEG" in errors[0]


@needs_data
def test_real_market_pictures_become_faultless_shards(tmp_path):
    folder = DATA / "market1501"
    annotations = {"train": folder / "market-annotation-train.csv", "test": folder / "market-annotation-test.csv"}
    made, report = plan(market1501, folder, annotations, [], None, 0)
    assert "12,116 usable" in report[0] and "263,632 pairs" in report[0]
    assert report[1] == "train: 187 images of 58 persons found, 522 pairs"
    assert report[-1].startswith("the test split has no pair and is left out: 0 of the 12,344 images")
    write(made, tmp_path / "out", workers=1)
    assert verify(tmp_path / "out", workers=1)[0] == []


@needs_data
def test_real_deepfashion_pictures_become_faultless_shards(tmp_path):
    folder = DATA / "deepfashion"
    annotations = {"test": folder / "fasion-annotation-test.csv"}
    made, report = plan(deepfashion, folder / "images", annotations, [], 8570, 0)
    assert "3,264 usable" in report[0] and "996 persons, 8,570 pairs" in report[0]
    assert report[1] == "test: 189 images of 91 persons found, 212 pairs"
    write(made, tmp_path / "out", workers=1)
    assert verify(tmp_path / "out", workers=1)[0] == []
