"""The pose files of the field's programs, told apart by what is in them.

    OpenPose's JSON                 {"people": [{"pose_keypoints_2d": [x, y, c, ...]}]}, BODY_25 or COCO
                                    (doc/02_output.md)
    ControlNet's and DWPose's       the same with "canvas_width" and "canvas_height", alone or in a list of frames;
                                    coordinates in 0..1 are shares of the canvas
    COCO's annotation file          {"images": [...], "annotations": [{"image_id", "keypoints": [x, y, v, ...]}]}
    COCO's results, AlphaPose's     [{"image_id", "keypoints": [x, y, score, ...]}]
    MMPose's predictions            [{"keypoints": [[x, y], ...], "keypoint_scores": [...]}]
    points                          [[x, y], ...] or [[x, y, c], ...] of 17, 18 or 25 joints, or [x, y, c, x, y, c,
                                    ...]; or a list of people, each such a list
    ours                            {"keypoints": points, "width": 480, "height": 960}, the size if it is known
    the field's CSV                 NAME: [18 y]: [18 x], with or without its header, one row or many
    NTED's txt                      18 lines x y

What a joint that is not seen looks like: (-1, -1), or a c that is not above 0. Where c is a score of all 17 joints, as
an estimator gives it, those below SURE are left out.
"""

import json
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mscgan.data.annotations import HEADER
from mscgan.errors import UserError
from mscgan.pose_layouts import COCO_NAMES, LAYOUTS, OTHERS, to_ours

SURE = 0.3  # of a joint's score; MMPose's own default for what it draws (kpt_thr)
_FORMS = (
    'expected OpenPose, ControlNet or COCO JSON, [[x, y], ...] of 18 points, {"keypoints": [...]}, a CSV row '
    "NAME: [18 y]: [18 x] or NTED's 18 lines x y"
)
_WHERE = "x and y in pixels of an image"


class People(NamedTuple):
    """An image's people, as a file has them."""

    name: str  # of the image; "" where the file does not say
    people: list[np.ndarray]  # (18, 2) float64 each, (x, y) in pixels of the image, a missing joint (-1, -1)
    frame: tuple[int, int] | None  # width, height of the image; None where the file does not say


class PoseFile(NamedTuple):
    form: str  # what the file was taken for
    images: list[People]  # one at least; an image may have nobody


def parse(text: str, name: str) -> PoseFile:
    """The text of a pose file, which `name` is called in messages.

    Raises:
        UserError: no form that is known, broken, other joints, or coordinates that are no pixels; says what was
            expected.
    """
    start = text.lstrip()[:1]
    try:
        if start and start in "[{":
            return _from_json(_json(text))
        rows = [row for row in text.splitlines() if row.strip()]
        if not rows:
            raise ValueError(f"it is empty; {_FORMS}")
        if ":" in text:
            return _from_csv(rows)
        return _from_lines(rows)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error


def _json(text: str):
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({error}); {_FORMS}") from error


def _from_json(value) -> PoseFile:
    if isinstance(value, dict):
        if "people" in value:
            return _of_frames([value])
        if "annotations" in value:
            return _of_coco(value)
        if "keypoints" in value or "pose_keypoints_2d" in value:
            return _of_one(value)
        keys = ", ".join(list(value)[:5])[:80]
        raise ValueError(f'it has no "keypoints", "people" or "annotations", but {keys or "nothing"}; {_FORMS}')
    if not value:
        raise ValueError(f"its list is empty; {_FORMS}")
    if all(isinstance(item, dict) for item in value):
        if all("people" in item for item in value):
            return _of_frames(value)
        if all("keypoints" in item for item in value):
            return _of_results(value)
        raise ValueError(f'not every object of its list has "keypoints" or "people"; {_FORMS}')
    # A list of people is three lists deep, a list of points two.
    if all(isinstance(item, list) and item and isinstance(item[0], list) for item in value):
        people = [_person(item, f"person {i}") for i, item in enumerate(value, 1)]
        return PoseFile(f"{len(value)} lists of {people[0].form}", [_people("", people, None)])
    person = _person(value, "it")
    return PoseFile(f"a list of {person.form}", [_people("", [person], None)])


def _of_frames(frames: list[dict]) -> PoseFile:
    """Images as OpenPose writes one a file, and ControlNet a list of."""
    images, forms = [], []
    for number, frame in enumerate(frames, 1):
        if not isinstance(frame["people"], list):
            raise ValueError("\"people\" is no list; expected OpenPose's or ControlNet's JSON")
        size = _size(frame, "canvas_width", "canvas_height")
        people = []
        for i, person in enumerate(frame["people"], 1):
            # "pose_keypoints" is what OpenPose wrote before version 1.3.
            keys = [
                key for key in ("pose_keypoints_2d", "pose_keypoints") if isinstance(person, dict) and key in person
            ]
            if not keys:
                raise ValueError(f"person {i} has no \"pose_keypoints_2d\"; expected OpenPose's or ControlNet's JSON")
            if not person[keys[0]]:
                continue  # hands or a face alone, or ControlNet's mark of an animal
            people.append(_person(person[keys[0]], f"person {i}"))
        forms += [f"{'ControlNet' if size else 'OpenPose'} JSON of {person.form}" for person in people[:1]]
        images.append(_people(f"frame {number}" if len(frames) > 1 else "", people, size, shares=size is not None))
    return PoseFile(forms[0] if forms else "OpenPose JSON", images)


def _of_coco(value: dict) -> PoseFile:
    """An annotation file: every image that has somebody with a joint."""
    annotations, listed = value["annotations"], value.get("images", [])
    objects = (annotations, listed, value.get("categories", []))
    if not all(isinstance(items, list) and all(isinstance(item, dict) for item in items) for items in objects):
        raise ValueError(
            "its images, annotations or categories are no lists of objects; expected COCO's annotation file"
        )
    for category in value.get("categories", []):
        if category.get("keypoints", COCO_NAMES) != COCO_NAMES:
            raise ValueError(
                f"its category {category.get('name')!r:.40} has other joints than COCO's 17 in their order"
            )
    posed = [item for item in annotations if "keypoints" in item]
    if annotations and not posed:
        raise ValueError("its annotations have no keypoints; give COCO's person_keypoints_*.json")
    known = {str(image.get("id")): image for image in listed}
    groups = _grouped(posed)
    images = []
    for key, items in groups.items():
        image = known.get(key, {})
        people = [_person(item["keypoints"], f"an annotation of image {key[:40]}") for item in items]
        found = _people(str(image.get("file_name", key)), people, _size(image, "width", "height"))
        images += [found] if found.people else []
    return PoseFile("COCO's annotation file", images or [People("", [], None)])


def _of_results(value: list[dict]) -> PoseFile:
    """COCO's results, which AlphaPose writes too, and MMPose's predictions."""
    groups = _grouped(value)
    images = []
    for key, items in groups.items():
        people = [_person(_scored(item), f"person {i} of image {key[:40]}") for i, item in enumerate(items, 1)]
        images.append(_people(key, people, None))
    form = "MMPose's predictions" if "keypoint_scores" in value[0] else "COCO's results"
    return PoseFile(form, images)


def _grouped(items: list[dict]) -> dict[str, list[dict]]:
    groups: dict[str, list[dict]] = {}
    for item in items:
        groups.setdefault(str(item.get("image_id", "")), []).append(item)
    return groups


def _scored(item: dict) -> object:
    """An object's points, with their scores where these have a list of their own."""
    points, scores = item["keypoints"], item.get("keypoint_scores")
    if scores is None:
        return points
    if not isinstance(points, list) or not isinstance(scores, list) or len(points) != len(scores):
        raise ValueError('"keypoints" and "keypoint_scores" are not lists of the same length')
    return [[*point, score] if isinstance(point, list) else point for point, score in zip(points, scores, strict=True)]


def _of_one(value: dict) -> PoseFile:
    person = _person(value.get("pose_keypoints_2d") or _scored(value), "it")
    return PoseFile(f"JSON of {person.form}", [_people("", [person], _size(value, "width", "height"))])


def _from_csv(rows: list[str]) -> PoseFile:
    if rows[0].replace(" ", "").lstrip("\ufeff") == HEADER:
        rows = rows[1:]
    images = []
    for row in rows:
        columns = row.rsplit(":", 2)
        if len(columns) != 3:
            raise ValueError(f"{row.strip()[:60]!r} has {len(columns)} columns between colons; {_FORMS}")
        name = columns[0].strip()
        try:
            ys, xs = json.loads(columns[1]), json.loads(columns[2])
        except (ValueError, RecursionError) as error:
            raise ValueError(f"a column of row {name[:60]!r} is not a list ({error}); {_FORMS}") from error
        if not isinstance(ys, list) or not isinstance(xs, list) or len(ys) != len(xs):
            raise ValueError(f"the columns of row {name[:60]!r} are not two lists of the same length; {_FORMS}")
        person = _person([[x, y] for x, y in zip(xs, ys, strict=True)], f"row {name[:60]!r}", marks=(18,))
        images.append(_people(name, [person], None))  # or nobody: the field's files have rows of -1 alone
    if not images:
        raise ValueError(f"it has a header and no row; {_FORMS}")
    return PoseFile(
        "a row of the field's CSV" if len(images) == 1 else f"the field's CSV of {len(images):,} rows", images
    )


def _from_lines(rows: list[str]) -> PoseFile:
    """Numbers in lines, as numpy.savetxt writes them. NTED's are x y, in a 256x256 image."""
    try:
        points = [[float(word) for word in re.split(r"[\s,;]+", row.strip())] for row in rows]
    except ValueError as error:
        raise ValueError(f"it is no pose ({rows[0].strip()[:40]!r}); {_FORMS}") from error
    person = _person(points, "it")
    inside = len(points) == 18 and person.points.max() < 256
    form = f"lines of {person.form}{', as in NTED, of a 256x256 image' if inside else ''}"
    return PoseFile(form, [_people("", [person], (256, 256) if inside else None)])


class _Person(NamedTuple):
    points: np.ndarray  # (17, 18 or 25; 2) float64, missing (-1, -1)
    form: str


def _person(value: object, who: str, marks: Sequence[int] = tuple(LAYOUTS)) -> _Person:
    """One person's points, in whichever of the orders has so many.

    Raises:
        ValueError: not so many, or not numbers.
    """
    expected = " or ".join(str(count) for count in marks)
    if not isinstance(value, list):
        raise ValueError(f"{who} has keypoints of {type(value).__name__}; {_FORMS}")
    flat = bool(value) and not any(isinstance(item, list) for item in value)
    if flat and len(value) % 3 == 0 and len(value) // 3 in (*LAYOUTS, *OTHERS):
        value = [value[i : i + 3] for i in range(0, len(value), 3)]
    elif flat:
        raise ValueError(f"{who} has {len(value)} numbers in a row; expected x, y, c of {expected} joints; {_FORMS}")
    if len(value) not in marks:
        whose = f", {OTHERS[len(value)]}" if len(value) in OTHERS else ""
        raise ValueError(f"{who} has {len(value)} keypoints{whose}; expected {expected}; {_FORMS}")
    width = len(value[0]) if isinstance(value[0], list) else 0
    for i, point in enumerate(value):
        if not isinstance(point, list) or len(point) != width or width not in (2, 3):
            raise ValueError(
                f"{who}: keypoint {i} is {_said(point)}, not two numbers [x, y] or three [x, y, c]; {_FORMS}"
            )
        # No bool, no text; and a NaN compares false.
        if not all(type(v) in (int, float) and abs(v) < 1e6 for v in point):
            raise ValueError(f"{who}: keypoint {i} is {_said(point)}, not two numbers; {_WHERE}")
    numbers = np.array(value, np.float64)
    points = numbers[:, :2].copy()
    title, _ = LAYOUTS[len(value)]
    if width == 3:
        sureness = numbers[:, 2]
        least = SURE if len(value) == 17 and not np.isin(sureness, (0, 1, 2)).all() else 0
        points[(sureness < least) | (sureness <= 0)] = -1
    for i, (x, y) in enumerate(points):
        if (x, y) == (0, 0):
            raise ValueError(
                f"{who}: keypoint {i} is at [0, 0], the corner, as OpenPose marks a joint that it did not find; write "
                "[-1, -1] for it"
            )
    return _Person(points, f"{title} ({'[x, y, c]' if width == 3 else '[x, y]'})")


def _people(name: str, people: list[_Person], frame: tuple[int, int] | None, shares: bool = False) -> People:
    """An image's people in our joints, with their coordinates looked at; who has no joint is nobody.

    shares: coordinates in 0..1 are shares of the frame.

    Raises:
        ValueError: coordinates that are no pixels of the image.
    """
    made = []
    for i, person in enumerate(people, 1):
        who = f"person {i}" + (f" of {name[:60]!r}" if name else "") if len(people) > 1 or name else "it"
        points, there = person.points, (person.points != -1).any(1)
        if not there.any():
            continue
        if (np.abs(points[there]) <= 1).all():
            if not shares or frame is None or (points[there] < 0).any():
                raise ValueError(
                    f"{who} has all coordinates in {'-1' if (points[there] < 0).any() else '0'}..1, so they are shares "
                    "of the image; multiply x by its width and y by its height (OpenPose: --keypoint_scale 0)"
                )
            points = np.where(there[:, None], (points * frame).clip(0, np.array(frame) - 1), -1)
        most = np.array(frame if frame else (math.inf, math.inf))
        outside = there & ((points < 0) | (points >= most)).any(1)
        if outside.any():
            joint = int(outside.argmax())
            of = f"its frame of {frame[0]}x{frame[1]} (width x height)" if frame else "its image"
            turned = bool((points[there] >= 0).all() and (points[there][:, ::-1] < most).all())
            hint = "; are x and y swapped?" if turned else "; a missing joint is [-1, -1]"
            raise ValueError(f"{who}: keypoint {joint} is {_said(points[joint].tolist())}, outside {of}{hint}")
        made.append(to_ours(points))
    return People(name, made, frame)


def _size(value: dict, width: str, height: str) -> tuple[int, int] | None:
    """An image's size, where the file has it."""
    if width not in value and height not in value:
        return None
    sides = [side for side in (value.get(width), value.get(height)) if type(side) is int and 0 < side < 1_000_000]
    if len(sides) < 2:
        came = f"{_said(value.get(width))} and {_said(value.get(height))}"
        raise ValueError(f"{width} and {height} are {came}; expected whole numbers > 0")
    return sides[0], sides[1]


def _said(value: object) -> str:
    return repr(value)[:60]
