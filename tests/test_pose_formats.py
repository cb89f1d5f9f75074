"""Every pose file of the field's programs: what it is taken for and how it is read, or the line that refuses it."""

import json

import numpy as np
import pytest

from mscgan.errors import UserError
from mscgan.pose_formats import parse
from tests.pose_factory import BODY_25, COCO_17, COCO_18, expected, flat, pairs, triples

ARM = ("right_elbow", "right_wrist")  # not seen
FACE = ("nose", "right_eye", "left_eye", "right_ear", "left_ear")


def openpose(*people: list, **more) -> dict:
    """As OpenPose writes a file an image: the hands and the face are there and empty."""
    empty = ("face_keypoints_2d", "hand_left_keypoints_2d", "hand_right_keypoints_2d", "pose_keypoints_3d")
    return {
        "version": 1.3,
        "people": [{"person_id": [-1], "pose_keypoints_2d": one} | {name: [] for name in empty} for one in people],
    } | more


def controlnet(*people: list) -> dict:
    """As ControlNet's preprocessors (DWPose, OpenPose) write it: hands and face null, the canvas beside."""
    return {
        "people": [
            {
                "pose_keypoints_2d": one,
                "face_keypoints_2d": None,
                "hand_left_keypoints_2d": None,
                "hand_right_keypoints_2d": None,
            }
            for one in people
        ],
        "animals": [],
        "canvas_height": 220,
        "canvas_width": 120,
    }


def shares(points: list) -> list:
    return [[x / 120, y / 220, c] for x, y, c in points]


def coco(annotations: list[dict], **more) -> dict:
    """As person_keypoints_val2017.json."""
    return {
        "info": {"year": 2017},
        "images": [
            {"id": 139, "file_name": "000000000139.jpg", "width": 120, "height": 220},
            {"id": 285, "file_name": "000000000285.jpg", "width": 640, "height": 425},
        ],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": COCO_17, "skeleton": [[16, 14]]}],
    } | more


def annotation(points: list, image: int = 139, **more) -> dict:
    seen = sum(point[2] > 0 for point in points)
    return {"image_id": image, "category_id": 1, "iscrowd": 0, "num_keypoints": seen, "keypoints": flat(points)} | more


def small(points: list) -> list:
    """Somebody a quarter as large, in the same corner."""
    return [[x / 4 + 1 if c else 0, y / 4 + 1 if c else 0, c] for x, y, c in points]


def row(points: list, name: str = "0002_c1s1_000451_03.jpg") -> str:
    return f"{name}: {json.dumps([y for _, y in points])}: {json.dumps([x for x, _ in points])}"


def lines(points: list, form: str) -> str:
    """As numpy.savetxt writes them."""
    return "".join(" ".join(form % value for value in point) + "\n" for point in points)


NOBODY = [[-1, -1]] * 18
SCORES = [0.9] * 17
DETECTED = triples(COCO_17, ARM)
UNSURE = [[*point[:2], 0.9] if point[2] else [20.5, 30.5, 0.1] for point in DETECTED]  # an estimator places every joint

# name: (text or JSON, what it is said to be, missing joints, the image's size)
READ = {
    "OpenPose, BODY_25": (openpose(flat(triples(BODY_25, ARM))), "OpenPose JSON of BODY_25", ARM, None),
    "OpenPose, COCO": (openpose(flat(triples(COCO_18, ARM))), "OpenPose JSON of OpenPose's 18 joints", ARM, None),
    "OpenPose, hardly sure": (
        openpose(flat(triples(BODY_25, ARM, sure=0.06))), "OpenPose JSON of BODY_25", ARM, None),
    "OpenPose before 1.3": (
        {"version": 1.1, "people": [{"pose_keypoints": flat(triples(COCO_18))}]},
        "OpenPose JSON of OpenPose's 18 joints", (), None),
    "ControlNet": (controlnet(flat(triples(COCO_18, ARM))), "ControlNet JSON", ARM, (120, 220)),
    "ControlNet, its list": ([controlnet(flat(triples(COCO_18, ARM)))], "ControlNet JSON", ARM, (120, 220)),
    "ControlNet, shares of the canvas": (
        controlnet(flat(shares(triples(COCO_18, FACE)))), "ControlNet JSON", FACE, (120, 220)),
    "COCO's annotation file": (
        coco([annotation(triples(COCO_17, ARM, sure=2))]), "COCO's annotation file", ARM, (120, 220)),
    "COCO's, labelled and hidden": (
        coco([annotation(triples(COCO_17, ARM, sure=1))]), "COCO's annotation file", ARM, (120, 220)),
    "COCO's, of a shoulder no neck": (
        coco([annotation(triples(COCO_17, ("left_shoulder",), sure=2))]),
        "COCO's annotation file", ("left_shoulder", "neck"), (120, 220)),
    "COCO's, one annotation": (annotation(triples(COCO_17, ARM, sure=2)), "JSON of COCO's 17 joints", ARM, None),
    "COCO's results": (
        [{"image_id": 139, "category_id": 1, "keypoints": flat(UNSURE), "score": 0.97}], "COCO's results", ARM, None),
    "AlphaPose": (
        [{"image_id": "1.jpg", "category_id": 1, "keypoints": flat(UNSURE), "score": 2.9, "box": [1, 2, 3, 4],
          "idx": [0.0]}], "COCO's results", ARM, None),
    "MMPose": (
        [{"keypoints": pairs(COCO_17), "keypoint_scores": SCORES, "bbox": [[1, 2, 3, 4]], "bbox_score": 0.9}],
        "MMPose's predictions", (), None),
    "17 pairs": (pairs(COCO_17, ARM), "a list of COCO's 17 joints ([x, y])", ARM, None),
    "17 triples": (triples(COCO_17, ARM), "a list of COCO's 17 joints ([x, y, c])", ARM, None),
    "17 triples in a row": (flat(triples(COCO_17, ARM)), "a list of COCO's 17 joints ([x, y, c])", ARM, None),
    "18 pairs": (pairs(COCO_18, ARM), "a list of OpenPose's 18 joints ([x, y])", ARM, None),
    "18 triples": (triples(COCO_18, ARM), "a list of OpenPose's 18 joints ([x, y, c])", ARM, None),
    "18 triples, missing as -1": (
        [[-1, -1, -1] if not c else [x, y, c] for x, y, c in triples(COCO_18, ARM)],
        "a list of OpenPose's 18 joints ([x, y, c])", ARM, None),
    "25 triples in a row": (flat(triples(BODY_25, ARM)), "a list of BODY_25 ([x, y, c])", ARM, None),
    "a list of one": ([pairs(COCO_18, ARM)], "1 lists of OpenPose's 18 joints ([x, y])", ARM, None),
    "ours": ({"keypoints": pairs(COCO_18, ARM)}, "JSON of OpenPose's 18 joints ([x, y])", ARM, None),
    "ours, with its size": (
        {"keypoints": pairs(COCO_18, ARM), "width": 120, "height": 220}, "JSON of OpenPose's 18", ARM, (120, 220)),
    "ours, of the shards": (
        {"name": "a.jpg", "person": "7", "keypoints": pairs(COCO_18, ARM)}, "JSON of OpenPose's 18", ARM, None),
    "the CSV's row": (row(pairs(COCO_18, ARM)), "a row of the field's CSV", ARM, None),
    "the CSV's row of a name with a colon": (
        row(pairs(COCO_18, ARM), "a:b.jpg"), "a row of the field's CSV", ARM, None),
    "the CSV with its header": (
        "name:keypoints_y:keypoints_x\n" + row(pairs(COCO_18, ARM)) + "\n", "a row of the field's CSV", ARM, None),
    "NTED's txt": (
        lines(pairs(COCO_18, ARM), "%.18e"), "lines of OpenPose's 18 joints ([x, y]), as in NTED", ARM, (256, 256)),
    "NTED's txt, whole numbers": (lines(pairs(COCO_18, ARM), "%d"), "as in NTED", ARM, (256, 256)),
    "lines of 25 x,y,c": (
        lines(triples(BODY_25, ARM), "%.2f,").replace(",\n", "\n"), "lines of BODY_25 ([x, y, c])", ARM, None),
}  # fmt: skip


def text_of(content: object) -> str:
    return content if isinstance(content, str) else json.dumps(content)


@pytest.mark.parametrize("name", READ)
def test_every_form_is_told_apart_and_read(name):
    content, form, missing, frame = READ[name]
    read = parse(text_of(content), "the pose")
    assert form in read.form
    [image] = read.images
    [person] = image.people
    assert image.frame == frame
    assert person.dtype == np.float64 and person == pytest.approx(expected(missing), abs=1e-9)


SEVERAL = {  # name: (content, names of the images, how many people each)
    "OpenPose of two": (openpose(flat(triples(BODY_25)), flat(small(triples(BODY_25)))), [""], [2]),
    "OpenPose of nobody": (openpose(), [""], [0]),
    "ControlNet of two frames": (
        [controlnet(flat(triples(COCO_18))), controlnet()], ["frame 1", "frame 2"], [1, 0]),
    "ControlNet, hands alone": ({"people": [{"pose_keypoints_2d": None, "hand_left_keypoints_2d": []}]}, [""], [0]),
    "COCO of two images": (
        coco([annotation(triples(COCO_17, sure=2)), annotation(triples(COCO_17, sure=2), 285),
              annotation(small(triples(COCO_17, sure=2)), 285), annotation([[0, 0, 0]] * 17, 285)]),
        ["000000000139.jpg", "000000000285.jpg"], [1, 2]),
    "COCO of nobody": (coco([]), [""], [0]),
    "AlphaPose of two images": (
        [{"image_id": f"{i}.jpg", "keypoints": flat(DETECTED)} for i in (1, 2, 2)], ["1.jpg", "2.jpg"], [1, 2]),
    "two lists": ([pairs(COCO_18), pairs(COCO_18)], [""], [2]),
    "the CSV of three rows": (
        "name:keypoints_y:keypoints_x\n" + "\n".join(
            row(points, name)
            for points, name in ((pairs(COCO_18), "a.jpg"), (NOBODY, "b.jpg"), (pairs(COCO_18), "c"))),
        ["a.jpg", "b.jpg", "c"], [1, 0, 1]),
}  # fmt: skip


@pytest.mark.parametrize("name", SEVERAL)
def test_images_and_their_people_are_kept_apart(name):
    content, names, counts = SEVERAL[name]
    read = parse(text_of(content), "the pose")
    assert [image.name for image in read.images] == names
    assert [len(image.people) for image in read.images] == counts


def test_people_in_one_coco_image_keep_their_order():
    read = parse(text_of(SEVERAL["COCO of two images"][0]), "the pose")
    sizes = [np.ptp(person[person[:, 0] != -1], axis=0)[1] for person in read.images[1].people]
    assert sizes == [96, 24]


def changed(point: object, order: list[str] = COCO_18) -> list:
    return [point, *pairs(order)[1:]]


REFUSED = {  # name: (content, the line)
    "nothing": ("", "the pose: it is empty; expected"),
    "words": ("hello there", "the pose: it is no pose ('hello there'); expected"),
    "broken JSON": ("[[1, 2], ", "the pose: it is not JSON ("),
    "JSON too deep": ("[" * 100_000, "the pose: it is not JSON ("),
    "an empty list": ([], "the pose: its list is empty"),
    "an empty object": ({}, 'the pose: it has no "keypoints", "people" or "annotations", but nothing'),
    "other keys": ({"points": []}, 'the pose: it has no "keypoints", "people" or "annotations", but points'),
    "objects without": ([{"a": 1}], 'the pose: not every object of its list has "keypoints" or "people"'),
    "a number": ({"keypoints": 3}, "the pose: it has keypoints of int"),
    "people that are a word": ({"people": "two"}, 'the pose: "people" is no list'),
    "people without a pose": ({"people": [{"name": 1}]}, 'the pose: person 1 has no "pose_keypoints_2d"'),
    "16 joints": (pairs(COCO_18)[:16], "the pose: it has 16 keypoints, MPII's; expected 17 or 18 or 25"),
    "19 joints": ([*pairs(COCO_18), [1, 1]], "the pose: it has 19 keypoints; expected 17 or 18 or 25"),
    "MPI's 15 of OpenPose": (
        openpose(flat(triples(COCO_18)[:15])), "the pose: person 1 has 15 keypoints, MPI's; expected 17 or 18 or 25"),
    "MediaPipe": ([[1, 2, 3]] * 33, "the pose: it has 33 keypoints, MediaPipe's"),
    "36 numbers": (flat(pairs(COCO_18)), "the pose: it has 36 numbers in a row; expected x, y, c of 17 or 18 or 25"),
    "one number": (changed([1]), "the pose: it: keypoint 0 is [1], not two numbers [x, y] or three"),
    "null": (changed(None), "the pose: it: keypoint 0 is None, not two numbers [x, y] or three"),
    "text": (changed(["1", 2]), "the pose: it: keypoint 0 is ['1', 2], not two numbers; x and y in pixels"),
    "a truth": (changed([True, 2]), "the pose: it: keypoint 0 is [True, 2], not two numbers; x and y in pixels"),
    "NaN": (changed([float("nan"), 2]), "the pose: it: keypoint 0 is [nan, 2], not two numbers; x and y in pixels"),
    "infinite": (changed([10**300, 2]), "the pose: it: keypoint 0 is [1000000"),
    "negative": (changed([-1, 5]), "the pose: it: keypoint 0 is [-1.0, 5.0], outside its image; a missing joint is"),
    "[0, 0]": (
        pairs(COCO_18, ARM, mark=(0, 0)),
        "the pose: it: keypoint 3 is at [0, 0], the corner, as OpenPose marks a joint that it did not find"),
    "[0, 0] in the CSV": (row(pairs(COCO_18, ARM, mark=(0, 0))), "keypoint 3 is at [0, 0], the corner"),
    "[0, 0] of a sure joint": (
        [[0, 0, 0.9] if name in ARM else [1, 2, 0.9] for name in COCO_18], "keypoint 3 is at [0, 0], the corner"),
    "OpenPose in shares": (
        openpose(flat(shares(triples(BODY_25, ARM)))),
        "the pose: it has all coordinates in 0..1, so they are shares of the image; multiply x by its width and y by "
        "its height (OpenPose: --keypoint_scale 0)"),
    "OpenPose in -1..1": (
        openpose(flat([[2 * x / 120 - 1, 2 * y / 220 - 1, c] for x, y, c in triples(BODY_25)])),
        "it has all coordinates in -1..1"),
    "a list in shares": ([point[:2] for point in shares(triples(COCO_18))], "it has all coordinates in 0..1"),
    "ours in shares, with a size": (
        {"keypoints": [point[:2] for point in shares(triples(COCO_18))], "width": 120, "height": 220},
        "it has all coordinates in 0..1"),
    "beyond its frame": (
        {"keypoints": changed([120, 2]), "width": 120, "height": 220},
        "the pose: it: keypoint 0 is [120.0, 2.0], outside its frame of 120x220 (width x height); a missing joint is"),
    "x and y swapped, in a frame": (
        {"keypoints": [[y, x] for x, y in pairs(COCO_18)], "width": 120, "height": 220},
        "outside its frame of 120x220 (width x height); are x and y swapped?"),
    "a width alone": ({"keypoints": pairs(COCO_18), "width": 64}, "width and height are 64 and None; expected whole"),
    "a canvas of 0": (
        controlnet(flat(triples(COCO_18))) | {"canvas_width": 0}, "canvas_width and canvas_height are 0 and 220"),
    "COCO without keypoints": (
        coco([{"image_id": 1, "bbox": [1, 2, 3, 4]}]),
        "its annotations have no keypoints; give COCO's person_keypoints"),
    "COCO of other joints": (
        coco([annotation(triples(COCO_17))], categories=[{"name": "hand", "keypoints": ["wrist"]}]),
        "its category 'hand' has other joints than COCO's 17 in their order"),
    "COCO of words": ({"annotations": ["a"]}, "are no lists of objects; expected COCO's annotation file"),
    "MMPose, scores missing": (
        [{"keypoints": pairs(COCO_17), "keypoint_scores": [0.9]}], "are not lists of the same length"),
    "one list of points, one not": ([pairs(COCO_18), [1, 2]], "the pose: it has 2 keypoints; expected"),
    "a row of two columns": ("a.jpg [1]: [2]", "has 2 columns between colons"),
    "a row of other lengths": ("a.jpg: [1, 2]: [3]", "the columns of row 'a.jpg' are not two lists of the same length"),
    "a row of 2": ("a.jpg: [1, 2]: [3, 4]", "the pose: row 'a.jpg' has 2 keypoints; expected 18"),
    "a row of 17": (row(pairs(COCO_17)), "has 17 keypoints; expected 18"),
    "a row that is cut": ("a.jpg: [1, 2: [3, 4]", "a column of row 'a.jpg' is not a list"),
    "a header alone": ("name:keypoints_y:keypoints_x\n", "it has a header and no row"),
    "lines of 16": (lines(pairs(COCO_18)[:16], "%d"), "it has 16 keypoints, MPII's"),
    "lines that differ": ("1 2\n" * 17 + "1 2 3\n", "keypoint 17 is [1.0, 2.0, 3.0], not two numbers [x, y] or three"),
    "lines of inf": ("inf 2\n" * 18, "keypoint 0 is [inf, 2.0], not two numbers"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_one_line_with_the_reason(name):
    content, line = REFUSED[name]
    with pytest.raises(UserError) as caught:
        parse(text_of(content), "the pose")
    said = str(caught.value)
    assert line in said and said.startswith("the pose: ") and "\n" not in said and len(said) < 400
