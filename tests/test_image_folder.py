"""Folders under the names of the field's public outputs: which picture is scored against which, and what is refused."""

import unicodedata
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mscgan.data.annotations import HEADER
from mscgan.errors import UserError
from mscgan.image_folder import keypoints, match, read

DATA = Path(__file__).parents[1].parent / "shared/data/market1501"
A, B, C = "0002_c1s1_000451_03", "0002_c3s1_065301_02", "0007_c1s1_000351_01"
FA, FB = "fashionWOMENShortsid0000513803_4full", "fashionWOMENShortsid0000513803_2side"
HEIGHT, WIDTH = 12, 6


def picture(name, height=HEIGHT, width=WIDTH):
    """A picture whose colours are its name's own."""
    return (
        np.full((height, width, 3), list(zlib.crc32(name.encode()).to_bytes(4, "big")[:3]), np.uint8)
        + np.arange(height, dtype=np.uint8)[:, None, None]
    )


def save(path, *pictures):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(pictures, axis=1)).save(path, "PNG")  # lossless, whatever the name says


@pytest.fixture
def folders(tmp_path):
    """true/ holds A, B, C and the two of DeepFashion; made/ is empty."""
    for name in (A, B, C, FA, FB):
        save(tmp_path / "true" / f"{name}.jpg", picture(name))
    (tmp_path / "made").mkdir()
    return tmp_path / "made", tmp_path / "true"


def listed(path, *pairs):
    path.write_text("from,to\n" + "".join(f"{source},{target}\n" for source, target in pairs))
    return path


def refused(words, *args):
    with pytest.raises(UserError, match=words) as error:
        match(*args)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000
    return str(error.value)


# A generated file's name, its panels, and what is to be read from it: of A -> B or FA -> FB.
MADE, POSE = "made image", "drawn pose"
NAMES = {
    "PATN": (f"{A}.jpg___{B}.jpg_vis.jpg", (A, POSE, B, POSE, MADE)),
    "PATN after crop_market.py": (f"{A}.jpg___{B}.jpg_vis.jpg", (MADE,)),
    "pose-gan, three panels": (f"{A}.jpg_{B}.jpg.jpg", (A, B, MADE)),
    "pose-gan, alone": (f"{A}.jpg_{B}.jpg.jpg", (MADE,)),
    "this project": (f"{A}.jpg_{B}.jpg.png", (MADE,)),
    "GFLA, DPTN": (f"{FA}_2_{FB}_vis.jpg", (MADE,)),
    "NTED": (f"{FA}_2_{FB}_vis.png", (MADE,)),
    "GFLA, three panels": (f"{FA}_2_{FB}_all.jpg", (FA, MADE, FB)),
    "PISE": (f"{FA}_{FB}_vis.jpg", (MADE,)),
    "PISE, three panels": (f"{FA}_{FB}_all.jpg", (FA, MADE, FB)),
    "SPGNet": (f"{A}_{B}.jpg", (MADE,)),
    "upper case": (f"{A}.JPG_{B}.JPEG.PNG", (MADE,)),
    "in folders": (f"epoch 3/images/{A}.jpg_{B}.jpg.png", (MADE,)),
}


@pytest.mark.parametrize("given", ["target", "source", "pairs", "pairs alone"])
@pytest.mark.parametrize("name, panels", NAMES.values(), ids=NAMES)
def test_every_public_name_finds_its_target_and_source(folders, tmp_path, name, panels, given):
    made, true = folders
    save(made / name, *map(picture, panels))
    source, target = (FA, FB) if FA in name else (A, B)
    pairs = listed(tmp_path / "pairs.csv", (f"{source}.jpg", f"{target}.jpg")) if "pairs" in given else None
    folder = None if given == "pairs alone" else true
    if folder is None and len(panels) == 1:
        refused("show no target beside what was generated; give --target DIR", made, None, None, pairs)
        return
    found = match(made, folder, true if given == "source" else None, pairs)
    (row,) = found.rows
    assert (row.key, row.target, found.height, found.width) == (name, f"{target}.jpg", HEIGHT, WIDTH)
    assert row.source.lower().startswith(source.lower()) and row.person == ("0002" if target == B else FB[:-6])
    pixels = read(row)
    np.testing.assert_array_equal(pixels[0], picture(MADE))
    np.testing.assert_array_equal(pixels[1], picture(target))
    assert row.has_source == (given == "source" or len(panels) > 1)
    if row.has_source:
        np.testing.assert_array_equal(pixels[2], picture(source))
    else:
        assert pixels[2] is None


@pytest.mark.parametrize("name", [n for n, panels in NAMES.values() if len(panels) > 1 and f"{FA}_{FB}" not in n])
def test_panels_need_no_other_folder_where_the_name_is_evident(folders, name):
    made, _ = folders
    panels = next(panels for n, panels in NAMES.values() if n == name and len(panels) > 1)
    save(made / name, *map(picture, panels))
    (row,) = match(made, None, None, None).rows
    source, target = (FA, FB) if FA in name else (A, B)
    assert [pixels.tolist() for pixels in read(row)] == [picture(p).tolist() for p in (MADE, target, source)]


@pytest.mark.parametrize("end", ["", ".jpg"])
@pytest.mark.parametrize("join, last", [("_2_", "_vis.png"), ("_", "_vis.png"), ("___", "_vis.jpg"), ("_", ".png")])
def test_a_name_with_two_extensions_as_market_1501_has_is_found_however_it_was_cut(folders, join, last, end):
    made, true = folders
    source, target = "1488_c1s6_023021_02.jpg", "1488_c3s3_071344_02.jpg"
    save(true / f"{target}.jpg", picture(target))
    save(made / f"{source}{end}{join}{target}{end}{last}", picture(MADE))
    (row,) = match(made, true, None, None).rows
    assert row.target == f"{target}.jpg" and read(row)[1].tolist() == picture(target).tolist()


def test_a_folder_of_true_images_goes_before_a_panel(folders):
    made, true = folders
    save(made / f"{A}.jpg_{B}.jpg.jpg", picture("another"), picture("as JPEG"), picture(MADE))
    (row,) = match(made, true, None, None).rows
    _, target, source = read(row)
    np.testing.assert_array_equal(target, picture(B))
    np.testing.assert_array_equal(source, picture("another"))


def test_an_image_that_has_only_its_targets_name_has_no_source(folders):
    made, true = folders
    save(made / f"{B}.png", picture(MADE))
    (row,) = match(made, true, None, None).rows
    assert (row.source, row.target, row.has_source) == ("", f"{B}.jpg", False)
    (row,) = match(made, true, true, listed(made.parent / "l.csv", (f"{A}.jpg", f"{B}.jpg"))).rows
    assert row.source == f"{A}.jpg" and read(row)[2].tolist() == picture(A).tolist()
    assert any("name no source" in note for note in match(made, true, true, None).notes)


def test_PG2_names_source_target_and_generated_image_alike(tmp_path):
    for number in ("00000", "00001"):
        for folder in ("x", "x_target", "G"):
            save(tmp_path / folder / f"{number}.png", picture(folder + number))
    rows = match(tmp_path / "G", tmp_path / "x_target", tmp_path / "x", None).rows
    assert [(row.source, row.target) for row in rows] == [("00000.png", "00000.png"), ("00001.png", "00001.png")]
    for row in rows:
        expected = [picture(folder + row.key[:5]).tolist() for folder in ("G", "x_target", "x")]
        assert [pixels.tolist() for pixels in read(row)] == expected


def test_a_copy_of_the_target_is_not_taken_for_the_source(folders):
    made, true = folders
    save(made / f"{B}.png", picture(MADE))
    save(made.parent / "all" / f"{B}.jpg", picture(B))
    (row,) = match(made, true, made.parent / "all", None).rows
    assert (row.source, row.source_path) == ("", None)


def test_rows_come_in_the_order_of_the_list_and_else_of_the_names(folders):
    made, true = folders
    pairs = [(C, A), (A, B), (B, A), (A, C)]
    for source, target in pairs:
        save(made / f"{source}.jpg_{target}.jpg.png", picture(MADE))
    rows = match(made, true, None, listed(made.parent / "l.csv", *((f"{s}.jpg", f"{t}.jpg") for s, t in pairs))).rows
    assert [(row.source, row.target) for row in rows] == [(f"{s}.jpg", f"{t}.jpg") for s, t in pairs]
    assert [row.person for row in rows] == ["0002", "0002", "0002", "0007"]
    assert [row.key for row in match(made, true, None, None).rows] == sorted(row.key for row in rows)


def test_inputs_that_stand_beside_an_answer_are_left_aside(folders):
    made, true = folders
    for end, name in (("vis", MADE), ("ref", FA), ("gt", FB)):
        save(made / f"{FA}_2_{FB}_{end}.jpg", picture(name))
    save(made / f"{FA}_2_{FB}_all.jpg", picture(FA), picture(MADE), picture(FB))
    found = match(made, true, None, None)
    assert [row.key for row in found.rows] == [f"{FA}_2_{FB}_vis.jpg"]
    assert any(note.startswith("3 files") for note in found.notes)


def test_what_is_no_image_by_its_name_is_nothing(folders):
    made, true = folders
    save(made / f"{B}.png", picture(MADE))
    for name in ("index.html", "statistics.npz", "._hidden.png"):
        (made / name).write_bytes(b"x")
    found = match(made, true, None, None)
    assert len(found.rows) == 1 and found.notes == (f"4 of 5 images in {true} are the target of no generated image",)


def test_dots_blanks_and_umlauts_are_part_of_a_name(tmp_path):
    save(tmp_path / "true/Frau Ä.v1.jpeg", picture(B))
    save(tmp_path / "made" / unicodedata.normalize("NFD", "Herr Ö. 2.JPG_Frau Ä.v1.jpeg.png"), picture(MADE))
    (row,) = match(tmp_path / "made", tmp_path / "true", None, None).rows
    assert row.target == "Frau Ä.v1.jpeg" and row.person == "Frau Ä.v1"


def test_deepfashions_tree_is_matched_by_its_flat_names(tmp_path):
    place = "WOMEN/Blouses_Shirts/id_00003372/03_2_side.jpg"
    flat = "fashionWOMENBlouses_Shirtsid0000337203_2side.jpg"
    save(tmp_path / "true/img" / place, picture(B))
    save(tmp_path / "true/img/MEN/Denim/id_00000080/01_2_side.jpg", picture(C))
    save(tmp_path / f"made/{flat}.png", picture(MADE))
    (row,) = match(tmp_path / "made", tmp_path / "true", None, None).rows
    assert row.target == flat and row.person == "fashionWOMENBlouses_Shirtsid0000337203"
    save(tmp_path / "same" / place.replace(".jpg", ".png"), picture(MADE))
    (row,) = match(tmp_path / "same", tmp_path / "true", None, None).rows
    assert read(row)[1].tolist() == picture(B).tolist()


def test_equal_names_in_two_folders_are_told_apart_by_the_folders(tmp_path):
    for person in ("anna", "ben"):
        save(tmp_path / f"true/{person}/1.jpg", picture(person))
        save(tmp_path / f"made/{person}/1.png", picture(MADE))
    rows = match(tmp_path / "made", tmp_path / "true", None, None).rows
    assert [row.target for row in rows] == ["anna/1.jpg", "ben/1.jpg"]
    assert [read(row)[1].tolist() for row in rows] == [picture("anna").tolist(), picture("ben").tolist()]
    save(tmp_path / "other/1.png", picture(MADE))
    refused("1.png may be anna/1.jpg, ben/1.jpg; leave one", tmp_path / "other", tmp_path / "true", None, None)


def test_a_list_says_what_is_missing_too_much_or_twice(folders):
    made, true = folders
    names = [f"{p:04d}_c1.jpg" for p in range(1, 8)]
    for name in names:
        save(true / name, picture(name))
    pairs = list(zip(names, names[1:]))
    for source, target in pairs:
        save(made / f"{source}_{target}.png", picture(MADE))
    assert len(match(made, true, None, listed(made.parent / "l.csv", *pairs)).rows) == 6
    few = listed(made.parent / "few.csv", *pairs[:2])
    text = refused("0003_c1.jpg_0004_c1.jpg.png, .* and 1 more are of no pair of", made, true, None, few)
    assert "remove them" in text
    more = listed(made.parent / "more.csv", *pairs, *((b, a) for a, b in pairs))
    refused("no image of 0002_c1.jpg,0001_c1.jpg, .* and 3 more of", made, true, None, more)
    twice = listed(made.parent / "twice.csv", *pairs, pairs[3])
    refused("twice.csv has 0004_c1.jpg,0005_c1.jpg more than once", made, true, None, twice)
    save(made / "again" / f"{names[0]}___{names[1]}_vis.png", picture(MADE))
    words = "0001_c1.jpg_0002_c1.jpg.png, again/.* show a pair that another file shows too"
    refused(words, made, true, None, listed(made.parent / "l.csv", *pairs))
    refused(words, made, true, None, None)


def test_a_target_of_several_pairs_does_not_name_a_pair(folders):
    made, true = folders
    save(made / f"{B}.png", picture(MADE))
    pairs = listed(made.parent / "l.csv", (f"{A}.jpg", f"{B}.jpg"), (f"{C}.jpg", f"{B}.jpg"))
    refused(f"{B}.png name a target that .* in several pairs; name them source and target", made, true, None, pairs)


def test_images_that_are_not_there_are_named(folders):
    made, true = folders
    save(made / f"{A}.jpg_{C}.jpg.png", picture(MADE))
    save(made / "0009_c1.jpg_0008_c1.jpg.png", picture(MADE))
    words = "0009_c1.jpg_0008_c1.jpg.png have no target in .*true, which has .*; a name is such as"
    refused(words, made, true, None, None)
    pairs = listed(made.parent / "l.csv", (f"{A}.jpg", f"{C}.jpg"), ("0009_c1.jpg", "0008_c1.jpg"))
    refused("--target .*true has no 0008_c1.jpg; copy", made, true, None, pairs)
    save(true / "0008_c1.jpg", picture("0008"))
    refused("--source .*true has no 0009_c1.jpg; copy", made, true, true, pairs)
    refused("have no target in .* or no source in", made, true, true, None)


def test_a_name_with_two_meanings_is_refused(folders):
    made, true = folders
    for name in ("x", "x_y", "y_z", "z"):
        save(true / f"{name}.jpg", picture(name.zfill(3)))
    save(made / "x_y_z.jpg", picture(MADE))
    refused("x_y_z.jpg may be x -> y_z or x_y -> z; give --pairs CSV", made, true, true, None)
    (row,) = match(made, true, true, listed(made.parent / "l.csv", ("x.jpg", "y_z.jpg"))).rows
    assert (row.source, row.target) == ("x.jpg", "y_z.jpg")
    save(made / f"{FA}_{FB}_all.jpg", picture(FA), picture(MADE), picture(FB))
    (made / "x_y_z.jpg").unlink()
    refused("may be read in several ways; give --target DIR or --pairs CSV", made, None, None, None)


def test_an_image_of_another_size_is_named_with_its_size_and_the_expected_one(folders):
    made, true = folders
    save(made / f"{A}.jpg_{B}.jpg.png", picture(MADE))
    save(made / f"{A}.jpg_{C}.jpg.png", picture(MADE, 24, 12))
    words = r"_0007_c1s1_000351_01.jpg.png is 24x12 \(expected 12x6 or 12x18\), height x width; nothing is resized"
    refused(words, made, true, None, None)
    save(made / f"{A}.jpg_{C}.jpg.png", picture(MADE))
    save(true / f"{C}.jpg", picture(C, 12, 7))
    refused(rf"{C}.jpg is 12x7 \(expected 12x6\)", made, true, None, None)
    save(true / f"{C}.jpg", picture(C))
    save(true / f"{A}.jpg", picture(A, 10, 6))
    assert len(match(made, true, None, None).rows) == 2
    refused(rf"{A}.jpg is 10x6 \(expected 12x6\)", made, true, true, None)


def test_panels_of_another_size_are_named(folders):
    made, _ = folders
    save(made / f"{A}.jpg_{B}.jpg.png", picture(A), picture(B), picture(MADE))
    save(made / f"{B}.jpg_{A}.jpg.png", picture(A), picture(B), picture(MADE))
    save(made / f"{A}.jpg_{C}.jpg.png", picture(MADE))
    refused(r"000351_01.jpg.png is 12x6 \(expected 12x18\)", made, None, None, None)
    save(made / f"{A}.jpg_{C}.jpg.png", picture(A, 12, 20))
    refused(r"000351_01.jpg.png is 12x20 \(expected 12x18\)", made, None, None, None)
    save(made / f"{A}.jpg_{C}.jpg.png", picture(A, 24, 12), picture(B, 24, 12), picture(MADE, 24, 12))
    refused(r"000351_01.jpg.png is 24x36 \(expected 12x18\)", made, None, None, None)


@pytest.mark.parametrize("place", ["generated", "target", "source"])
def test_a_picture_of_another_kind_is_named_with_what_it_is(folders, place):
    made, true = folders
    names = {"generated": made / f"{A}.jpg_{B}.jpg.png", "target": true / f"{B}.jpg", "source": true / f"{A}.jpg"}
    save(names["generated"], picture(MADE))
    Image.fromarray(picture("grey")).convert("L").save(names[place], "PNG")
    refused(rf"{names[place].name} is grey; write it again as a JPEG or PNG with 8 bits", made, true, true, None)
    names[place].write_bytes(b"")
    refused(rf"{names[place].name} is empty \(0 bytes\)", made, true, true, None)


def test_several_broken_pictures_are_counted(folders):
    made, true = folders
    for name in (A, B, C, FA, FB):
        (made / f"{name}.png").write_bytes(b"no picture")
    refused("png is neither JPEG nor PNG, .* and 2 more; write it again", made, true, None, None)


def test_a_picture_that_was_cut_off_is_named_when_it_is_read(folders):
    made, true = folders
    path = made / f"{B}.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-60])
    (row,) = match(made, true, None, None).rows
    with pytest.raises(UserError, match=f"{B}.png is cut off or damaged"):
        read(row)


def test_folders_that_are_none_or_empty_are_refused(folders, tmp_path):
    made, true = folders
    refused("--generated .*made has no image", made, true, None, None)
    refused("--generated .*none is not a folder", tmp_path / "none", true, None, None)
    save(made / f"{B}.png", picture(MADE))
    refused("--target .*none is not a folder", made, tmp_path / "none", None, None)
    refused("cannot read .*none.csv", made, true, None, tmp_path / "none.csv")


def test_keypoints_are_found_by_name(tmp_path):
    path = tmp_path / "annotation.csv"
    rows = {name: [[joint + shift, 2 * joint] for joint in range(18)] for shift, name in enumerate((A, B, C))}
    lines = [f"{n}.jpg: {[y for _, y in points]}: {[x for x, _ in points]}" for n, points in rows.items()]
    path.write_text("\n".join([HEADER, *lines]))
    found = keypoints(path, [f"{C}.jpg", f"{A}.png", C], 128, 64)
    assert found.dtype == np.float32 and found.tolist() == np.array([rows[C], rows[A], rows[C]], float).tolist()
    with pytest.raises(UserError, match="annotation.csv has no line for x.jpg, y.jpg, but for 0002_.*; give the keyp"):
        keypoints(path, ["x.jpg", f"{A}.jpg", "y.jpg", "x.jpg"], 128, 64)
    assert keypoints(path, [], 128, 64).shape == (0, 18, 2)
    with pytest.raises(UserError, match="line 2: keypoint 16 at x 16, y 32 is outside a 32x32 .* of that size"):
        keypoints(path, [f"{A}.jpg"], 32, 32)


@pytest.mark.skipif(not DATA.is_dir(), reason="no photographs in ../shared/data")
def test_photographs_of_market_1501_under_PATNs_names(tmp_path):
    """Each source's copy stands for the generated image, in PATN's five panels, saved as JPEG as it does."""
    true = DATA / "bounding_box_train"
    names = sorted(path.name for path in true.glob("*.jpg"))[:12]
    pixels = {name: np.array(Image.open(true / name)) for name in names}
    (tmp_path / "images").mkdir()
    pairs = [(a, b) for a in names[:6] for b in names[6:]]
    for a, b in pairs[::-1]:
        five = [pixels[name] for name in (a, a, b, b, a)]
        Image.fromarray(np.concatenate(five, axis=1)).save(tmp_path / f"images/{a}___{b}_vis.jpg", quality=95)
    found = match(tmp_path / "images", true, true, listed(tmp_path / "l.csv", *pairs))
    assert (found.height, found.width) == (128, 64)
    assert [(row.source, row.target, row.person) for row in found.rows] == [(a, b, b[:4]) for a, b in pairs]
    for row in found.rows[::7]:
        generated, target, source = read(row)
        np.testing.assert_array_equal(target, pixels[row.target])
        np.testing.assert_array_equal(source, pixels[row.source])
        assert np.abs(generated.astype(int) - source).mean() < 4 < np.abs(generated.astype(int) - target).mean()
    assert keypoints(DATA / "market-annotation-train.csv", names, 128, 64).shape == (12, 18, 2)
