"""Poses that an estimator finds in a user's pictures: of the largest person, in the picture's own pixels, and kept."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from mscgan import photos
from mscgan.errors import UserError
from mscgan.estimators import Person
from shards import find_poses as module
from shards.digest import file_sha256
from shards.find_poses import NOBODY, find_poses, identity


@pytest.fixture
def seen(monkeypatch):
    """An estimator that finds, of each square, a person whose joints lie on its corners; the sizes it was shown."""
    shown = []

    def estimate(pixels: np.ndarray) -> list[Person]:
        shown.append(pixels.shape)
        people = []
        for level in (255, 128):
            ys, xs = np.nonzero((pixels[..., 0] > level - 20) & (pixels[..., 0] < level + 20))
            if len(xs):
                corners = np.array([[xs.min(), ys.min()], [xs.max(), ys.max()]], np.float32)
                keypoints = np.concatenate([np.repeat(corners, 8, axis=0), [[-1, -1], [pixels.shape[1] + 9, 3]]])
                people.append(Person(keypoints.astype(np.float32), np.ones(18, np.float32), 1.0))
        return people

    module._opened.cache_clear()
    monkeypatch.setattr(module, "open_estimator", lambda name: estimate)
    yield shown
    module._opened.cache_clear()


def picture(path, size=(40, 60), squares=((10, 20, 19, 39, 255),)):
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    for left, top, right, bottom, level in squares:
        pixels[top : bottom + 1, left : right + 1] = level
    Image.fromarray(pixels).save(path)
    return {path: file_sha256(path)}


def test_joints_are_in_pixels_of_the_picture_and_what_lies_outside_is_missing(tmp_path, seen):
    pictures = picture(tmp_path / "a.png")
    found, several = find_poses(pictures, "movenet", tmp_path / "kept", 1)
    (keypoints,) = found.values()
    assert keypoints == [[10, 20]] * 8 + [[19, 39]] * 8 + [[-1, -1]] * 2 and several == 0


def test_a_large_picture_is_searched_reduced_and_answered_in_its_own_pixels(tmp_path, seen, monkeypatch):
    monkeypatch.setattr(photos, "ENOUGH", 15)
    pictures = picture(tmp_path / "a.png", squares=((12, 20, 19, 39, 255),))
    (keypoints,) = find_poses(pictures, "movenet", tmp_path / "kept", 1)[0].values()
    assert seen == [(15, 10, 3)]
    assert keypoints[0] == [13.5, 21.5] and keypoints[8] == [17.5, 37.5]  # the middles of blocks of 4x4 pixels


def test_the_largest_person_is_taken_and_pictures_of_several_are_counted(tmp_path, seen):
    pictures = picture(tmp_path / "a.png", squares=((2, 2, 5, 5, 255), (10, 20, 30, 50, 128)))
    pictures |= picture(tmp_path / "b.png")
    found, several = find_poses(pictures, "movenet", tmp_path / "kept", 1)
    assert found[pictures[tmp_path / "a.png"]][0] == [10, 20] and several == 1


def test_nobody_is_found_in_a_black_picture(tmp_path, seen):
    found, several = find_poses(picture(tmp_path / "a.png", squares=()), "movenet", tmp_path / "kept", 1)
    assert list(found.values()) == [NOBODY] and several == 0


def test_what_was_found_is_not_searched_again_and_a_mended_picture_is(tmp_path, seen):
    kept = tmp_path / "kept"
    pictures = picture(tmp_path / "a.png") | picture(tmp_path / "b.png", (44, 60))
    (tmp_path / "b.png").write_bytes(b"no picture")
    pictures[tmp_path / "b.png"] = file_sha256(tmp_path / "b.png")
    with pytest.raises(UserError, match="b.png is no picture"):
        find_poses(pictures, "movenet", kept, 1)
    assert len(seen) == 1 and len(kept.read_text().splitlines()) == 1
    pictures |= picture(tmp_path / "b.png", (44, 60))
    first = find_poses(pictures, "movenet", kept, 1)
    assert len(seen) == 2  # b alone
    assert find_poses(pictures, "movenet", kept, 1) == first and len(seen) == 2
    find_poses(pictures, "paf", kept, 1)  # another estimator has found nothing yet
    assert len(seen) == 4


def test_a_line_that_a_crash_has_cut_costs_one_search_and_no_more(tmp_path, seen):
    kept = tmp_path / "kept"
    pictures = picture(tmp_path / "a.png") | picture(tmp_path / "b.png", (44, 60))
    first = find_poses(pictures, "movenet", kept, 1)
    kept.write_bytes(kept.read_bytes()[:-20])
    assert find_poses(pictures, "movenet", kept, 1) == first and len(seen) == 3
    assert find_poses(pictures, "movenet", kept, 1) == first and len(seen) == 3
    assert all(json.loads(line) for line in kept.read_text().splitlines())


def test_a_picture_that_changes_meanwhile_is_named(tmp_path, seen):
    pictures = picture(tmp_path / "a.png")
    picture(tmp_path / "a.png", (44, 60))
    with pytest.raises(UserError, match="a.png was changed while the shards were built; give the same command again"):
        find_poses(pictures, "movenet", tmp_path / "kept", 1)


def test_an_estimator_is_known_by_its_name_or_by_its_weights(tmp_path):
    assert identity("movenet") == {"estimator": "movenet"}
    (tmp_path / "generator.safetensors").write_bytes(b"x")
    of_run, of_file = identity(str(tmp_path)), identity(str(tmp_path / "generator.safetensors"))
    assert of_run == of_file == {"estimator": "paf", "sha256": hashlib.sha256(b"x").hexdigest()}
    with pytest.raises(
        UserError, match="--estimator none.pth: cannot read none.pth .No such file.*; give movenet or paf, the folder"
    ):
        identity("none.pth")
