"""Plans shards of a user's own pictures: of any names, formats and sizes, whose persons are told, and whose poses are
told or found.

A picture comes into the frame as mscgan/framing.py says, and its keypoints with it: the whole of it, its edges repeated
where its shape is another, or its person with the margins that the field's data sets have. Pictures are upright, as
EXIF turns them, and so are coordinates in them. As for the field's data sets, a picture takes part whose hips and
shoulders are there, and pairs are all ordered pairs of a person.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mscgan.config import takes
from mscgan.data.annotations import Annotation, text
from mscgan.errors import UserError
from shards.claim import is_built
from shards.digest import sha256
from shards.find_poses import NOBODY, identity
from shards.own_frame import Posed, box_of, framed, sizes
from shards.own_pictures import OwnPicture, fingerprint, list_pictures, read_pictures
from shards.own_poses import found, provenance, read_poses, told
from shards.pairs import by_hash, ordered_pairs
from shards.persons import BY_FOLDER, persons, shorter, some
from shards.write import LONGEST_KEY, Image, Plan, Split

NAME = "folder"
POSES, LEFT_OUT, SOURCES = "poses.csv", "left-out.csv", "sources.csv"
MOST_PAIRS = 100_000_000  # 0.8 GB of table, and some times as much while it is made


@dataclass(frozen=True)
class Asked:
    """What the command line says.

    person: a rule of persons.persons. annotations, estimator: one of them. crop: one of own_frame.CROPS. test: persons
    of the test split or, below 1, their share. validation: persons of that split. any_pose: take the annotations' poses
    also where they look wrong.
    """

    images: Path
    person: str
    height: int
    width: int
    annotations: Path | None = None
    estimator: str = ""
    crop: str = "whole"
    test: float = 0.2
    validation: int = 0
    any_pose: bool = False


def plan(asked: Asked, out: Path, workers: int) -> tuple[Plan | None, list[str]]:
    """The plan, or None where `out` has its build already; and a report of what it takes and leaves, a line each.

    Raises:
        UserError: what is asked for does not fit, in itself or to the pictures; a picture that cannot be read; nothing
            to build.
    """
    source = _source(asked)
    names, others = list_pictures(asked.images)
    shown = persons(asked.person, names)
    _test_persons(asked, sum(count > 1 for count in Counter(shown.values()).values()))  # before long work
    rows = read_poses(asked.annotations) if asked.annotations else []
    pictures = read_pictures(asked.images, list(shown))
    checksum = {"pictures_sha256": fingerprint(pictures)}
    if is_built(out, source, checksum):
        return None, []
    report = [
        f"{asked.images}: {len(names):,} pictures, {len(shown):,} of them of {len(set(shown.values())):,} persons"
    ]
    if others:
        report.append(f"{len(others):,} files are no pictures by their names, {some(others)}: ignored")
    left = {name: "nobody is named for it" for name in names if name not in shown}
    notes: dict[str, str] = {}
    pictures = _without_copies(pictures, shown, {row.name for row in rows}, left, report)
    if asked.annotations:
        poses = told(asked.annotations, rows, pictures, report, asked.any_pose)
    else:
        poses = found(asked.estimator, pictures, out, workers, report)
    notes[POSES] = text([Annotation(name, keypoints) for name, keypoints in poses.items() if keypoints])
    taken = _with_partners(_framed(pictures, shown, poses, asked, left), left)
    for reason, count in Counter(left.values()).items():
        report.append(f"{count:,} left out, {reason}: {some(name for name in left if left[name] == reason)}")
    if not taken:
        raise UserError(f"no pair to build, as no person has two usable pictures; {'; '.join(report)}")
    report += sizes(taken, asked.height, asked.width, asked.crop)
    splits = _splits(taken, asked)
    for split, made in splits.items():
        here = len({image.person for image in made.images})
        report.append(f"{split}: {len(made.images):,} pictures of {here:,} persons, {len(made.pairs):,} pairs")
    notes[SOURCES] = _table(["key", "file", "person", "split"], _sources(splits))
    if left:
        notes[LEFT_OUT] = _table(["file", "reason"], sorted(left.items()))
        report.append(f"what is left out is named in {LEFT_OUT}")
    make = partial(framed, height=asked.height, width=asked.width)
    return Plan(NAME, asked.height, asked.width, source, splits, make, notes, checksum), report


def _source(asked: Asked) -> dict:
    """What the build is told to make, as JSON values.

    Raises:
        UserError: it does not fit together.
    """
    if bool(asked.annotations) == bool(asked.estimator):
        raise UserError("where are the poses? Give --annotations FILE, or --estimator NAME to find them, and not both")
    if not takes(asked.height, asked.width):
        height = max(32, 1 << (max(asked.height, asked.width, 1) - 1).bit_length())
        width = height // 2 if asked.width <= height // 2 else height
        raise UserError(
            f"--height {asked.height} --width {asked.width}: the networks take a height that is a power of two, 32 or "
            f"more, and a width of the height or half of it; give --height {height} --width {width}: pictures of "
            "another shape lie in it as a whole, their edges repeated"
        )
    if not (0 <= asked.test < 1 or asked.test > 0 and float(asked.test).is_integer()):
        raise UserError(f"--test {asked.test:g}: give a number of persons, or a share of them from 0 to below 1")
    if asked.validation < 0:
        raise UserError(f"--validation {asked.validation}: give a number of persons, 0 or more")
    table = Path(asked.person)
    return {
        "poses": provenance(asked.annotations) if asked.annotations else identity(asked.estimator),
        "person": provenance(table) if asked.person != BY_FOLDER and table.is_file() else asked.person,
        "height": asked.height,
        "width": asked.width,
        "crop": asked.crop,
        "test": asked.test,
        "validation": asked.validation,
        "rule": "the smallest SHA-256 of the person: test first, then validation",
    }


def _without_copies(
    pictures: list[OwnPicture], shown: dict[str, str], named: set[str], left: dict[str, str], report: list[str]
) -> list[OwnPicture]:
    """The pictures without those that have the bytes of another one of their person.

    named: what a file has poses of; of copies one of these is kept.
    """
    copies: dict[tuple[str, str], list[OwnPicture]] = {}
    for picture in pictures:
        copies.setdefault((picture.sha256, shown[picture.name]), []).append(picture)

    def has_a_pose(picture: OwnPicture) -> bool:
        return not named.isdisjoint((picture.name, *shorter(picture.name)))

    kept = {next(filter(has_a_pose, same), same[0]).name for same in copies.values()}
    left |= {one.name: "a copy of another picture of the person" for one in pictures if one.name not in kept}
    first: dict[str, OwnPicture] = {}
    of_two = []
    pictures = [picture for picture in pictures if picture.name in kept]
    for picture in pictures:
        before = first.setdefault(picture.sha256, picture)
        if before is not picture:
            of_two.append(f"{before.name} = {picture.name}")
    if of_two:
        report.append(
            f"warning: {len(of_two):,} pictures are there for two persons, {some(of_two)}; is one of them wrong?"
        )
    return pictures


def _framed(
    pictures: list[OwnPicture], shown: dict[str, str], poses: dict[str, list], asked: Asked, left: dict[str, str]
) -> list[Posed]:
    """The pictures whose pose is whole enough."""
    keys = _keys([picture.name for picture in pictures])
    taken = []
    for picture in pictures:
        keypoints = poses[picture.name]
        if not keypoints:
            left[picture.name] = "no pose is given for it"
        elif keypoints == NOBODY:
            left[picture.name] = "nobody was found in it"
        elif not Annotation(picture.name, keypoints).usable:
            left[picture.name] = "a hip or a shoulder was not found in it"
        elif np.ptp([point for point in keypoints if point != [-1, -1]], axis=0).max() < 4:
            left[picture.name] = "all its joints are in one place"
        else:
            box = box_of(picture, keypoints, asked.height, asked.width, asked.crop)
            taken.append(Posed(keys[picture.name], picture, shown[picture.name], keypoints, box))
    return taken


def _with_partners(taken: list[Posed], left: dict[str, str]) -> list[Posed]:
    """Those whose person has another picture."""
    times = Counter(posed.person for posed in taken)
    alone = {posed.picture.name for posed in taken if times[posed.person] == 1}
    left |= dict.fromkeys(sorted(alone), "the only usable picture of its person")
    return [posed for posed in taken if posed.picture.name not in alone]


def _test_persons(asked: Asked, persons: int) -> int:
    """How many of the persons with two pictures are the test split.

    Raises:
        UserError: nobody would be left to train on.
    """
    test = int(asked.test) if asked.test >= 1 else max(1, round(asked.test * persons)) if asked.test else 0
    if persons and test + asked.validation >= persons:
        raise UserError(
            f"--test {asked.test:g} and --validation {asked.validation} are {test + asked.validation} persons of the "
            f"{persons} who have two usable pictures or more, and nobody is left to train on; give fewer, --test 0 for "
            "none"
        )
    return test


def _splits(taken: list[Posed], asked: Asked) -> dict[str, Split]:
    """Train, validation and test, by persons.

    Raises:
        UserError: nobody would be left to train on, or there are too many pairs.
    """
    groups: dict[str, list[Posed]] = {}
    for posed in taken:
        groups.setdefault(posed.person, []).append(posed)
    test = _test_persons(asked, len(groups))
    pairs = {person: len(group) * (len(group) - 1) for person, group in groups.items()}
    if sum(pairs.values()) > MOST_PAIRS:
        most = max(pairs, key=lambda person: pairs[person])
        raise UserError(
            f"{sum(pairs.values()):,} pairs, where {MOST_PAIRS:,} are the most: all ordered pairs of a person, and "
            f"{most} alone has {len(groups[most]):,} pictures; of a film take every tenth, say"
        )
    order = by_hash(groups)
    ends = {"train": order[test + asked.validation :], "validation": order[test : test + asked.validation]}
    splits = {}
    for split, people in (ends | {"test": order[:test]}).items():
        chosen = set(people)
        images = [_image(posed) for person in groups if person in chosen for posed in groups[person]]
        if images:
            splits[split] = Split(images, ordered_pairs([image.person for image in images]))
    return splits


def _sources(splits: dict[str, Split]) -> Iterator[list[str]]:
    """Which picture each image of the shards was made from."""
    for split, made in splits.items():
        yield from ([image.key, image.recipe.picture.name, image.person, split] for image in made.images)


def _image(posed: Posed) -> Image:
    made_from = [posed.picture.name, posed.picture.sha256, posed.keypoints, posed.box]
    return Image(posed.key, posed.person, posed, json.dumps(made_from))


def _keys(names: list[str]) -> dict[str, str]:
    """name -> key: the path with `_` for what a key cannot have, and where two would be alike, a checksum of it too."""
    plain = {name: re.sub(r"[^A-Za-z0-9_-]+", "_", name.rpartition(".")[0])[: LONGEST_KEY - 9] for name in names}
    times = Counter(plain.values())
    return {name: key if times[key] == 1 else f"{key}-{sha256(name.encode())[:8]}" for name, key in plain.items()}


def _table(head: list[str], rows: Iterable) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue()
