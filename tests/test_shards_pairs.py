"""Pair lists: published counts and rows, pandas' draw, the public names, broken files."""

from pathlib import Path

import numpy as np
import pytest

from mscgan.data.annotations import HEADER, read, read_list
from mscgan.errors import UserError
from shards import deepfashion, market1501, pairs

DATA = Path(__file__).parents[1].parent / "shared/data"
MARKET_TRAIN = DATA / "market1501/market-annotation-train.csv"
MARKET_TEST = DATA / "market1501/market-annotation-test.csv"
FASHION_TEST = DATA / "deepfashion/fasion-annotation-test.csv"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the public keypoint files are not in ../shared/data")

JOINTS = "[" + ", ".join(["10"] * 18) + "]"


def candidates(dataset, path):
    kept, persons = pairs.usable(read(path, dataset.HEIGHT, dataset.WIDTH), dataset)
    return [row.name for row in kept], persons, pairs.ordered_pairs(persons)


@needs_data
@pytest.mark.parametrize(
    "dataset, path, images, persons, count",
    [
        (market1501, MARKET_TRAIN, 12_116, 745, 263_632),
        (market1501, MARKET_TEST, 12_344, 745, 257_198),
        (deepfashion, FASHION_TEST, 3_264, 996, 8_570),
    ],
    ids=["market-train", "market-test", "deepfashion-test"],
)
def test_the_public_files_give_the_published_counts(dataset, path, images, persons, count):
    names, of, found = candidates(dataset, path)
    assert (len(names), len(set(of)), len(found)) == (images, persons, count)


@needs_data
@pytest.mark.parametrize(
    "dataset, path, head",
    [
        (market1501, MARKET_TEST, DATA / "market1501/market-pairs-test-head.csv"),
        (deepfashion, FASHION_TEST, DATA / "deepfashion/fashion-pairs-test-head.csv"),
    ],
    ids=["market", "deepfashion"],
)
def test_the_draw_gives_the_first_rows_of_the_published_test_lists(dataset, path, head):
    names, _, found = candidates(dataset, path)
    drawn = [(names[i], names[j]) for i, j in pairs.sample(found, 12_000, seed=0)]
    published = [(source, target) for _, source, target in read_list(head)]
    assert len(published) == 100 and drawn[:100] == published


def test_the_draw_is_that_of_pandas():
    """What pandas 3.1 gives: DataFrame({"row": range(10)}).sample(n=10, random_state=0)."""
    rows = np.stack([np.arange(10)] * 2, axis=1)
    assert pairs.sample(rows, 10, seed=0)[:, 0].tolist() == [2, 8, 4, 9, 1, 6, 7, 3, 0, 5]
    assert pairs.sample(rows, 3, seed=0)[:, 0].tolist() == [2, 8, 4]
    assert len(pairs.sample(rows, 99, seed=0)) == 10


def test_ordered_pairs_are_all_permutations_person_by_person():
    assert pairs.ordered_pairs(["b", "a", "b", "c", "b"]).tolist() == [[0, 2], [0, 4], [2, 0], [2, 4], [4, 0], [4, 2]]
    assert pairs.ordered_pairs(["a", "b"]).shape == (0, 2)


def test_junk_and_distractors_are_nobody():
    assert market1501.person("0002_c1s1_000451_03.jpg") == "0002"
    assert market1501.person("-1_c1s1_000451_03.jpg") is None
    assert market1501.person("0000_c1s1_000451_03.jpg") is None
    with pytest.raises(UserError, match="not a Market-1501 name"):
        market1501.person("fashionMENDenimid0000008001_2side.jpg")


@pytest.mark.parametrize(
    "tree, name, outfit",
    [
        (
            "img/WOMEN/Dresses/id_00000002/02_1_front.jpg",
            "fashionWOMENDressesid0000000202_1front.jpg",
            "fashionWOMENDressesid0000000202",
        ),
        (
            "MEN/Tees_Tanks/id_00007301/04_7_additional.jpg",
            "fashionMENTees_Tanksid0000730104_7additional.jpg",
            "fashionMENTees_Tanksid0000730104",
        ),
        (
            "WOMEN/Blouses_Shirts/id_00003372/03_2_side.jpg",  # a second "id", in "side"
            "fashionWOMENBlouses_Shirtsid0000337203_2side.jpg",
            "fashionWOMENBlouses_Shirtsid0000337203",
        ),
    ],
)
def test_the_original_tree_and_the_flat_names_meet(tree, name, outfit):
    assert deepfashion.flat(tree) == name
    assert deepfashion.flat(name) == name
    assert deepfashion.person(name) == outfit


def test_the_four_joint_filter_wants_hips_and_shoulders(tmp_path):
    lines = [HEADER]
    for joint in range(18):
        values = ["-1" if j == joint else "10" for j in range(18)]
        lines.append(f"{joint:04d}_c1.jpg: [{', '.join(values)}]: [{', '.join(values)}]")
    path = tmp_path / "a.csv"
    path.write_text("\n".join(lines))
    usable = {int(row.name[:4]) for row in read(path, 128, 64) if row.usable}
    assert set(range(18)) - usable == {2, 5, 8, 11}


@pytest.mark.parametrize(
    "line, words",
    [
        (f"b.jpg: {JOINTS}", "line 3: 2 fields"),
        (f"b.jpg: {JOINTS}: {JOINTS}: {JOINTS}", "line 3: 4 fields"),
        (f"b.jpg: {JOINTS}: {JOINTS[:-9]}", "line 3: keypoints_x is not a list of numbers"),
        (f"b.jpg: {JOINTS}: [1, 2, 3]", "line 3: keypoints_x has 3 numbers; expected 18"),
        (f"b.jpg: {JOINTS}: {JOINTS.replace('10', 'NaN', 1)}", "line 3: keypoints_x is not a list of numbers"),
        (f"b.jpg: {JOINTS}: {JOINTS.replace('10', '64', 1)}", "line 3: keypoint 0 at x 64, y 10 is outside a 128x64"),
        (f"b.jpg: {JOINTS}: {JOINTS.replace('10', '-1', 1)}", "line 3: keypoint 0 at x -1, y 10 is outside"),
        (f"a.jpg: {JOINTS}: {JOINTS}", "line 3: a.jpg is also on line 2"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, words):
    path = tmp_path / "a.csv"
    path.write_text(f"{HEADER}\na.jpg: {JOINTS}: {JOINTS}\n{line}\n")
    with pytest.raises(UserError, match=words):
        read(path, 128, 64)


def test_a_file_that_is_no_keypoint_file_or_pair_list_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    for content in (b"", b"from;to\na,b", b"\xff\xd8\xff\xe0"):
        path.write_bytes(content)
        with pytest.raises(UserError):
            read(path, 128, 64)
        with pytest.raises(UserError):
            read_list(path)
    path.write_text("from,to\na.jpg,b.jpg\nc.jpg\n")
    with pytest.raises(UserError, match="line 3"):
        read_list(path)
    with pytest.raises(UserError, match="cannot read"):
        read(tmp_path / "none.csv", 128, 64)


def test_the_command_writes_a_list_that_the_build_reads(tmp_path, monkeypatch, capsys):
    csv, out = tmp_path / "a.csv", tmp_path / "pairs.csv"
    names = ["0001_c1.jpg", "0002_c1.jpg", "0001_c2.jpg", "-1_c1.jpg"]
    csv.write_text("\n".join([HEADER, *(f"{name}: {JOINTS}: {JOINTS}" for name in names)]))
    monkeypatch.setattr("sys.argv", ["pairs.py", "market1501", "--annotations", str(csv), "--out", str(out)])
    pairs.main()
    assert read_list(out) == [(2, "0001_c1.jpg", "0001_c2.jpg"), (3, "0001_c2.jpg", "0001_c1.jpg")]
    assert "4 rows, 3 usable, 2 persons, 2 pairs; 2 written" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--seed 1 --out b.csv", "--seed does nothing here: it goes with --sample"),
        ("--out a.csv", "a.csv would be wri"),
    ],
)
def test_the_command_refuses_a_seed_without_a_draw_and_to_write_over_its_annotations(
    tmp_path, monkeypatch, words, said
):
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text(HEADER)
    monkeypatch.setattr("sys.argv", ["pairs.py", "market1501", "--annotations", "a.csv", *words.split()])
    with pytest.raises(UserError, match=said):
        pairs.main()
    assert Path("a.csv").read_text() == HEADER and not Path("b.csv").exists()
