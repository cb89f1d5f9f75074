"""Whom a user's pictures show: each way of saying it, and what is said where it does not fit."""

import pytest

from mscgan.errors import UserError
from shards.persons import by_name, persons

PATHS = ["anna/1.jpg", "anna/2.PNG", "bert/day 1/1.jpg", "bert/day 1/3.webp", "cover.jpg"]


def table(tmp_path, *lines):
    path = tmp_path / "people.csv"
    path.write_text("\n".join(["name,person", *lines]))
    return path


def test_a_person_is_the_folder_that_the_picture_lies_in():
    assert persons("folder", PATHS) == {
        "anna/1.jpg": "anna",
        "anna/2.PNG": "anna",
        "bert/day 1/1.jpg": "bert/day 1",
        "bert/day 1/3.webp": "bert/day 1",
    }


def test_a_person_is_the_first_group_of_an_expression_found_anywhere_in_the_path():
    assert persons("^([a-z]+)/", PATHS) == dict.fromkeys(PATHS[:2], "anna") | dict.fromkeys(PATHS[2:4], "bert")
    assert persons(r"/(\d)(\.)", PATHS)["bert/day 1/3.webp"] == "3"
    assert persons("(x)?jpg", ["a.jpg", "xjpg"]) == {"xjpg": "x"}  # a group that took no part says nobody


def test_a_table_names_a_picture_by_its_path_or_its_last_part(tmp_path):
    path = table(
        tmp_path, "anna/1.jpg,Anna", '"bert/day 1/1.jpg", "Bert, the second"', "", "./3.webp,Bert", "gone.jpg,Carl"
    )
    assert persons(str(path), PATHS) == {
        "anna/1.jpg": "Anna",
        "bert/day 1/1.jpg": "Bert, the second",
        "bert/day 1/3.webp": "Bert",
    }


def test_a_table_names_pictures_of_deepfashions_tree_by_their_flat_names():
    rows = {"fashionWOMENDressesid0000000202_1front.jpg": 7}
    tree = "img_highres/WOMEN/Dresses/id_00000002/02_1_front.jpg"
    assert by_name(rows, [tree], "t") == {tree: 7}


def test_a_name_that_may_be_two_pictures_is_refused_unless_it_is_the_path_of_one():
    with pytest.raises(UserError, match=r"t: 1.jpg may be anna/1.jpg or bert/day 1/1.jpg; give their paths"):
        by_name({"1.jpg": 0}, PATHS, "t")
    assert by_name({"1.jpg": 0}, [*PATHS, "1.jpg"], "t") == {"1.jpg": 0}


def test_an_umlaut_is_one_in_either_form():
    assert by_name({"Jo\u0308rg.jpg": 1}, ["J\u00f6rg.jpg"], "t") == {"J\u00f6rg.jpg": 1}


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (
            "[a-z]+",
            r"an expression without a group; put what names the person in \(\), .* such as anna/1.jpg, anna/2.PNG",
        ),
        ("(anna", "no regular expression .missing .*, unterminated subpattern"),
        (
            "(carl)/",
            r"says nobody for the 5 pictures, anna/1.jpg, anna/2.PNG, bert/day 1/1.jpg and 2 more; mend the exp",
        ),
        ("none.csv", "cannot read none.csv: No such file"),
    ],
)
def test_an_expression_that_says_nobody_shows_the_paths(rule, words):
    with pytest.raises(UserError, match=words):
        persons(rule, PATHS)


def test_pictures_in_no_folder_are_nobodys():
    with pytest.raises(
        UserError, match="--person folder says nobody for the 1 pictures, a.jpg; put the pictures of each"
    ):
        persons("folder", ["a.jpg"])


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["anna/1.jpg"], "line 2: 'anna/1.jpg'; expected name,person"),
        (["anna/1.jpg,Anna,5"], "line 2: 'anna/1.jpg,Anna,5'; expected"),
        (["anna/1.jpg, "], "line 2: .*; expected"),
        (["anna/1.jpg,Anna", "", "anna/1.jpg,Bert"], "line 4: anna/1.jpg is there twice; remove one"),
        (["x.jpg,Anna"], "says nobody for the 5 pictures"),
        (["anna/1.jpg,An\0na"], r"line 2: 'An.x00na' cannot be a person's name"),
        (["anna/1.jpg," + "x" * 4097], "line 2: 'x*' cannot be a person's name: .* more than 4,096 bytes"),
        (['"' + "x" * 200_000 + '",Anna'], "line 2: field larger than field limit"),
    ],
)
def test_a_broken_table_is_named_with_its_line(tmp_path, lines, words):
    with pytest.raises(UserError, match=words):
        persons(str(table(tmp_path, *lines)), PATHS)


def test_a_table_without_its_head_is_refused(tmp_path):
    path = tmp_path / "people.csv"
    path.write_text("anna/1.jpg,Anna\n")
    with pytest.raises(UserError, match="line 1: 'anna/1.jpg,Anna'; a table of persons begins with name,person"):
        persons(str(path), PATHS)
