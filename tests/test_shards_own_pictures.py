"""Which files of a user's folder are pictures."""

import hashlib

import pytest
from PIL import Image

from mscgan.errors import UserError
from shards.own_pictures import fingerprint, list_pictures, read_pictures


def test_pictures_are_known_by_their_endings_in_any_folder_below_and_hidden_ones_are_passed_over(tmp_path):
    names = [
        "b/c/2.webp",
        "b/1.JPG",
        "a.tiff",
        "me.HEIC",
        "burst.mpo",
        "x.avif",
        "v.mp4",
        "b/notes.txt",
        "scan.pdf",
        "noend",
    ]
    for name in [*names, ".x.jpg", "b/._1.jpg", ".git/1.jpg"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    pictures, others = list_pictures(tmp_path)
    assert pictures == ["a.tiff", "burst.mpo", "me.HEIC", "x.avif", "b/1.JPG", "b/c/2.webp"]
    assert others == ["noend", "scan.pdf", "v.mp4", "b/notes.txt"]


def test_sizes_and_checksums_are_of_the_files(tmp_path):
    for name, size in (("a.png", (30, 20)), ("b.webp", (50, 70))):
        Image.new("RGB", size).save(tmp_path / name)
    a, b = read_pictures(tmp_path, ["a.png", "b.webp"])
    assert (a.name, a.size, b.size) == ("a.png", (30, 20), (50, 70))
    assert a.sha256 == hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    assert len({fingerprint([a, b]), fingerprint([b]), fingerprint([a])}) == 3


def test_a_link_to_nowhere_is_named(tmp_path):
    (tmp_path / "a.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(UserError, match="no image '.*a.jpg'"):
        read_pictures(tmp_path, ["a.jpg"])


def test_all_pictures_that_cannot_be_read_are_said_at_once(tmp_path):
    names = [f"{number}.jpg" for number in range(8)]
    for name in names:
        (tmp_path / name).touch()
    Image.new("RGB", (30, 20)).save(tmp_path / "3.jpg")
    with pytest.raises(
        UserError, match=r"7 of 8 pictures .*: .*/0.jpg is empty; .*/5.jpg is empty.*\. And 2 more like"
    ):
        read_pictures(tmp_path, names)


@pytest.mark.parametrize("name", ["a\nb.jpg", "a\u2028b.jpg", " a.jpg", "a\udcff.jpg"])
def test_a_name_that_no_list_can_have_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(UserError, match="has characters that no list can have; rename the file"):
        list_pictures(tmp_path)


def test_a_folder_without_pictures_says_what_is_there(tmp_path):
    with pytest.raises(UserError, match="has no picture, but nothing; the name of one ends with .jpg"):
        list_pictures(tmp_path)
    (tmp_path / "v.mp4").touch()
    with pytest.raises(UserError, match="has no picture, but v.mp4"):
        list_pictures(tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        list_pictures(tmp_path / "v.mp4")
