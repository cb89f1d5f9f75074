"""Names of images of both data sets, and of anybody's."""

import unicodedata

import pytest

from mscgan.data.names import key, person


@pytest.mark.parametrize(
    "name, expected",
    [
        ("0002_c1s1_000451_03.jpg", "0002_c1s1_000451_03"),
        ("1488_c1s6_023021_02.jpg.jpg", "1488_c1s6_023021_02"),  # a name of the public test list
        ("a.b.c.JPG", "a.b.c"),
        ("Frau Müller.jpeg", "Frau Müller"),
        (unicodedata.normalize("NFD", "Frau Müller.png"), "Frau Müller"),  # as some file systems give it back
        ("walk/01.PNG", "walk/01"),
        ("img/WOMEN/Dresses/id_00000002/02_1_front.jpg", "fashionWOMENDressesid0000000202_1front"),
        ("no extension", "no extension"),
    ],
)
def test_names_of_one_image_have_one_key(name, expected):
    assert key(name) == expected


@pytest.mark.parametrize(
    "name, whom",
    [
        ("0002_c1s1_000451_03.jpg", "0002"),
        ("-1_c1s1_000451_03.jpg", "-1"),
        ("bounding_box_test/0002_c1s1_000451_03.jpg", "0002"),
        ("fashionWOMENBlouses_Shirtsid0000337203_2side.jpg", "fashionWOMENBlouses_Shirtsid0000337203"),
        ("WOMEN/Blouses_Shirts/id_00003372/03_2_side.jpg", "fashionWOMENBlouses_Shirtsid0000337203"),
        ("fashionWOMENBlouses_Shirtsid0000337203_2side", "fashionWOMENBlouses_Shirtsid0000337203"),
        ("me.png", "me"),
    ],
)
def test_a_name_says_whom_it_shows(name, whom):
    assert person(name) == whom
