"""Poses of a user's pictures, as files of the field's programs tell them."""

import json

import numpy as np
import pytest

from mscgan.data.annotations import HEADER
from mscgan.errors import UserError
from shards.find_poses import NOBODY
from shards.own_pictures import OwnPicture
from shards.own_poses import provenance, read_poses, told
from tests.pose_factory import BODY_25, COCO_17, COCO_18, expected, flat, triples

SIZE = (120, 220)


def pictures(*names, size=SIZE):
    return [OwnPicture(name, None, name, size) for name in names]


def row(name, points=None):
    points = expected() if points is None else points
    return f"{name}: {points[:, 1].astype(int).tolist()}: {points[:, 0].astype(int).tolist()}"


def coco(*images, size=SIZE):
    """An annotation file: (file_name, the factors of its people's sizes) each."""
    people = [
        {"image_id": number, "category_id": 1, "keypoints": flat([[x * f, y * f, 2] for x, y, _ in triples(COCO_17)])}
        for number, (_, factors) in enumerate(images)
        for f in factors
    ]
    listed = [
        {"id": number, "file_name": name, "width": size[0], "height": size[1]}
        for number, (name, _) in enumerate(images)
    ]
    return {"images": listed, "annotations": people, "categories": [{"id": 1, "name": "person"}]}


def openpose(folder, name, order=BODY_25, **options):
    path = folder / f"{name}_keypoints.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": 1.3, "people": [{"pose_keypoints_2d": flat(triples(order, **options))}]}))


def poses(path, *chosen, any_pose=False):
    report = []
    return told(path, read_poses(path), list(chosen), report, any_pose), report


def test_cocos_annotation_file_gives_the_largest_person_of_each_picture(tmp_path):
    path = tmp_path / "person_keypoints_own.json"
    path.write_text(json.dumps(coco(("anna/1.jpg", [0.5, 1.0, 0.2]), ("2.png", [1.0]), ("gone.jpg", [1.0]))))
    found, report = poses(path, *pictures("anna/1.jpg", "bert/2.png", "bert/3.png"))
    assert found["anna/1.jpg"] == found["bert/2.png"] == expected().tolist() and found["bert/3.png"] == []
    assert report == [f"1 rows of {path} name no picture that is used, gone.jpg: ignored"]


def test_a_folder_of_openposes_files_is_matched_by_their_names(tmp_path):
    openpose(tmp_path / "json", "anna/1")
    openpose(tmp_path / "json", "2", COCO_18, missing=("nose",))
    (tmp_path / "json/3_keypoints.json").write_text('{"people": []}')
    found, report = poses(tmp_path / "json", *pictures("anna/1.jpg", "bert/2.png", "bert/3.webp", "bert/4.jpg"))
    assert found["anna/1.jpg"] == expected().tolist()
    assert found["bert/2.png"] == expected(("nose",)).tolist()
    assert found["bert/3.webp"] == NOBODY and found["bert/4.jpg"] == [] and report == []


def test_a_file_of_copies_of_a_known_size_is_scaled(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(coco(("1.jpg", [1.0]), ("2.jpg", [1.0]))))
    found, _ = poses(path, *pictures("1.jpg", "2.jpg", size=(361, 660)))  # but for rounding
    assert np.abs(np.array(found["1.jpg"]) - ((expected() + 0.5) * [361 / 120, 3] - 0.5)).max() < 0.1
    with pytest.raises(
        UserError, match=r"a.json, 1.jpg: its picture is 120x220 .width x height. there, and 220x120 here"
    ):
        poses(path, *pictures("1.jpg", "2.jpg", size=SIZE[::-1]))


def test_joints_that_an_estimator_guessed_outside_of_the_picture_are_missing_and_many_are_a_mistake(tmp_path):
    openpose(tmp_path, "1")
    found, _ = poses(tmp_path, *pictures("1.jpg", size=(120, 190)))
    assert [joint for joint, point in enumerate(found["1.jpg"]) if point == [-1, -1]] == [10, 13]
    with pytest.raises(UserError, match="1_keypoints.json, 1: 13 of 18 joints are outside of its picture of 120x118"):
        poses(tmp_path, *pictures("1.jpg", size=(120, 118)))


def test_another_joint_order_is_refused_and_one_odd_pose_is_said(tmp_path):
    path = tmp_path / "a.csv"
    lying = expected()[:, ::-1]
    lines = [row(f"{number}.jpg") for number in range(5)]
    path.write_text("\n".join([HEADER, *lines, row("5.jpg", lying)]))
    _, report = poses(path, *pictures(*(f"{number}.jpg" for number in range(6)), size=(220, 220)))
    assert report == [
        "warning: 1 poses are hardly a person's, 5.jpg; of the first: the body lies on its side, from neck to hips; "
        "are x and y swapped? A point is [x, y]"
    ]
    path.write_text("\n".join([HEADER, *(row(f"{number}.jpg", lying) for number in range(6))]))
    taken = pictures(*(f"{number}.jpg" for number in range(6)), size=(220, 220))
    with pytest.raises(UserError, match="a.csv: 6 of 6 poses are hardly a person's, 0.jpg: .* with --any-pose"):
        poses(path, *taken)
    found, report = poses(path, *taken, any_pose=True)
    assert found["0.jpg"] == lying.tolist() and report[0].startswith("warning: 6 poses are hardly a person's")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            json.dumps([[*point] for point in expected().tolist()]),
            "does not say whose 1 of its poses are; give a file tha",
        ),
        ('{"x": 1}', 'has no "keypoints", "people" or "annotations"'),
        ("name,person", "line 1: 'name,person'; a keypoint file begins with name:"),
        ("", "line 1: ''; a keypoint file begins with"),
    ],
)
def test_a_file_that_does_not_name_its_pictures_is_refused(tmp_path, content, words):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(UserError, match=words):
        read_poses(path)


@pytest.mark.parametrize(("zeros", "refused"), [([1], False), ([1, 1], True), ([2], True)])
def test_joints_at_the_corner_are_such_that_were_not_found_unless_it_is_one_of_many(tmp_path, zeros, refused):
    """zeros: how many joints at (0, 0) the first of ten pictures have."""
    lines = [HEADER]
    for number in range(10):
        points = expected()
        points[14 : 14 + sum(zeros[number : number + 1])] = 0
        lines.append(row(f"{number}.jpg", points))
    (tmp_path / "a.csv").write_text("\n".join(lines))
    if not refused:
        assert read_poses(tmp_path / "a.csv")[0].keypoints[14] == [0, 0]
        return
    with pytest.raises(UserError, match="a.csv line 2: a joint is at x 0, y 0, the corner, .* write -1 in both lists"):
        read_poses(tmp_path / "a.csv")


def test_a_folder_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no .json or .txt file; give a keypoint file, or their folder"):
        read_poses(tmp_path)
    (tmp_path / "all.json").write_text(json.dumps(coco(("1.jpg", [1.0]), ("2.jpg", [1.0]))))
    with pytest.raises(UserError, match="all.json has the poses of 2 pictures; in a folder each file is of one"):
        read_poses(tmp_path)
    (tmp_path / "all.json").unlink()
    openpose(tmp_path, "1")
    (tmp_path / "1.txt").write_text("\n".join(f"{x:.0f} {y:.0f}" for x, y in expected()))
    with pytest.raises(UserError, match="1.txt, 1 and .*1_keypoints.json, 1: the picture is there twice"):
        poses(tmp_path, *pictures("1.jpg"))


def test_a_folder_of_poses_is_known_by_all_its_files(tmp_path):
    openpose(tmp_path, "1")
    before = provenance(tmp_path)
    assert provenance(tmp_path) == before and before["folder"] == tmp_path.name
    openpose(tmp_path, "1", missing=("nose",))
    assert provenance(tmp_path) != before
    with pytest.raises(UserError, match="cannot read none.csv: No such file"):
        provenance(tmp_path.relative_to(tmp_path) / "none.csv")
