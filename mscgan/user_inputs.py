"""What users bring to `generate`: a photograph and poses, and how they come into the model's frame.

A photograph (mscgan/photos.py) is taken whole, scaled to fit the frame with its edges repeated where its shape is
another, or a box of it is (mscgan/framing.py). A pose comes from a file (mscgan/pose_formats.py: which) or from a
photograph by an estimator (mscgan/estimators.py). It is taken as it is where it lies in the model's frame; a file may
give a frame of the same shape, from which it is scaled; any other is moved as the box around its person would be.
"""

import difflib
import itertools
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mscgan import files, framing
from mscgan.errors import UserError
from mscgan.estimators import Estimator, largest_first
from mscgan.photos import Photo, endings, read_photo
from mscgan.pose_checks import TOO_MANY, odd
from mscgan.pose_formats import People, parse

POSE_ENDINGS = {".json", ".csv", ".txt"}
MOST_BYTES = 32 << 20  # of a pose file; COCO's val2017 has 10 MB, DeepFashion's CSV 16


class Nobody(UserError):
    """A photograph or a pose file shows nobody, or too little of somebody: of several it can be left out."""


class TooFew(UserError):
    """Not so many people as --person asks for. shown: of each file or image of which this holds, how many it shows."""

    def __init__(self, person: int, shown: list[str]):
        self.shown = shown
        of_several = "leave these away, or take their poses with another --person in a command of its own"
        advice = of_several if len(shown) > 1 else "give another --person"
        super().__init__(f"{', '.join(shown)}; there is no person {person}; {advice}")


class Target(NamedTuple):
    """A pose to generate."""

    name: str  # of its file or image, without folder and ending; "" for a text that names none
    keypoints: np.ndarray  # (18, 2) float32 (x, y) in the model's frame, a missing joint (-1, -1)
    photo: np.ndarray | None  # (height, width, 3) uint8, the photograph that it was found in, as the frame shows it
    note: str  # what it was taken for, and what was done to it


def into_frame(pixels: np.ndarray, height: int, width: int, box: framing.Box | None = None) -> np.ndarray:
    """A photograph (H, W, 3) uint8, or the box of it -> (height, width, 3) uint8.

    Raises:
        UserError: the box shows nothing of it.
    """
    whole = framing.whole_box(pixels.shape[1], pixels.shape[0], height, width)
    return framing.cut(pixels, box or whole, height, width)


def read_image(
    path: Path, height: int, width: int, box: framing.Box | None = None, estimate: Estimator | None = None
) -> tuple[np.ndarray, str]:
    """A photograph -> (height, width, 3) uint8, and a note on what was done ("" where nothing was).

    It is taken as a whole, or the box (in pixels of the file, upright; grown to the frame's shape), or the box around
    the largest person that `estimate` finds.

    Raises:
        UserError: as read_photo; nobody was found; the box shows nothing.
    """
    photo = read_photo(path)
    came = f"{photo.size[0]}x{photo.size[1]}"
    factor = photo.size[0] / photo.pixels.shape[1]
    if estimate:
        people = find_people(photo, str(path), estimate)
        around = _around(people[0], height, width, str(path))
        note = f"{path} is {came} (width x height): {_moved(around, factor)}"
        if len(people) > 1:
            note += f", the largest of {len(people)}; another by --box"
        return into_frame(photo.pixels, height, width, around), note
    if box:
        grown = framing.shaped(box, height, width)
        sides = ",".join(f"{side:.0f}" for side in grown)
        note = f"{path} is {came} (width x height): the box {sides} of it, of the shape of {width}x{height}, is taken"
        return into_frame(photo.pixels, height, width, framing.scaled(grown, 1 / factor)), note
    if photo.size == (width, height):
        return photo.pixels, ""
    scale = min(width / photo.size[0], height / photo.size[1])
    inner = max(1, round(photo.size[0] * scale)), max(1, round(photo.size[1] * scale))
    note = f"{path} is {came} (width x height): scaled to {inner[0]}x{inner[1]}"
    if inner != (width, height):
        note += (
            f" and centred in the model's {width}x{height}, its edges repeated; best crop it to the person, "
            "with --crop auto or --box"
        )
    return into_frame(photo.pixels, height, width), note


def find_people(photo: Photo, name: str, estimate: Estimator) -> list[np.ndarray]:
    """The people in a photograph, the largest first: (18, 2) each, in pixels of photo.pixels.

    Raises:
        Nobody: none was found.
    """
    people = largest_first(person.keypoints for person in estimate(photo.pixels))
    if not people:
        raise Nobody(f"nobody was found in {name}; give a photograph that shows one person, large and whole")
    return people


def photo_pose(path: Path, estimate: Estimator, height: int, width: int, person: int | None = None) -> Target:
    """The pose of the largest person of a photograph, or of the `person`-th largest.

    Raises:
        UserError: no photograph.
        TooFew: not so many people in it.
        Nobody: there is nobody in it.
    """
    photo = read_photo(path)
    keypoints, note = _choose(find_people(photo, str(path), estimate), str(path), person)
    if photo.size == (width, height):
        return Target(path.stem, keypoints.astype(np.float32), photo.pixels, note)
    box = _around(keypoints, height, width, str(path))
    shown = into_frame(photo.pixels, height, width, box)
    note = f"{note}; {_moved(box, photo.size[0] / photo.pixels.shape[1])}"
    return Target(path.stem, framing.place(keypoints, box, height, width), shown, note)


def read_poses(
    given: str, height: int, width: int, person: int | None = None, image: str = "", any_pose: bool = False
) -> list[Target]:
    """A pose file's path, or its text -> the poses in it, one an image: of the largest person or the `person`-th.

    person: from 1. image: of a file of many images, the name of the one that is wanted. any_pose: take also what can
    hardly be a person (mscgan/pose_checks.py).

    Raises:
        UserError: no such file, no form that is known, no such image, an odd pose.
        TooFew: an image that shows somebody has not so many people; names all of these.
        Nobody: there is nobody in it.
    """
    text, name = _content(given)
    form, images = parse(text, name)
    if image:
        images = [_named(images, image, name)]
    there = [one for one in images if one.people]
    if not there:
        raise Nobody(f"{name} is {form} and has nobody with a joint; was a person found in that image?")
    targets, strange, small, fewer = [], [], [], []
    for one in there:
        who = f"{name}, {one.name}" if len(images) > 1 else name
        try:
            keypoints, chosen = _choose(largest_first(one.people), who, person)
        except TooFew as error:
            fewer += error.shown
            continue
        try:
            placed, moved = to_frame(keypoints, one.frame, height, width)
        except UserError as error:
            small.append(f"{who}: {error}")
            continue
        if reason := odd(keypoints):
            strange.append(f"{who} is {form}, but {reason}")
        note = f"{chosen}: {form}" + (f"; {moved}" if moved else "")
        title = Path(one.name).stem or ("" if name == _TEXT else Path(name).stem)
        targets.append(Target(title, placed, None, note))
    if fewer and person:
        raise TooFew(person, fewer)
    if not targets:
        raise Nobody(small[0])
    if len(strange) > TOO_MANY * len(targets) and not any_pose:
        raise UserError(f"{strange[0]}; or take it as it is with --any-pose")
    notes = [f"{len(images) - len(there):,} of its images show nobody"] if len(there) < len(images) else []
    notes += [f"{len(small):,} of its poses are left out: {small[0]}"] if small else []
    notes += [f"{len(strange):,} of its poses look wrong: {strange[0]}"] if strange else []
    targets[-1] = targets[-1]._replace(note="; ".join([targets[-1].note, *notes]))
    return targets


def to_frame(keypoints: np.ndarray, frame: tuple[int, int] | None, height: int, width: int) -> tuple[np.ndarray, str]:
    """A file's keypoints in the model's frame, (18, 2) float32, and what was done ("" where nothing was).

    frame: width, height of the image that they are of, or None where nobody says.

    Raises:
        UserError: too few joints to say how large the person is.
    """
    inside = bool((keypoints <= [width - 1, height - 1]).all())
    if frame == (width, height) or (frame is None and inside):
        return keypoints.astype(np.float32), ""
    if frame and abs(frame[0] * height - frame[1] * width) <= max(height, width):  # the same but for rounding
        box = (0.0, 0.0, float(frame[0]), float(frame[1]))
        return framing.place(keypoints, box, height, width), f"scaled from {frame[0]}x{frame[1]} to {width}x{height}"
    box = framing.person_box(keypoints, height, width)
    return framing.place(keypoints, box, height, width), _moved(box, 1)


_TEXT = "the pose"


def _content(given: str) -> tuple[str, str]:
    """The text of a pose and what to call it, from a file or as it was given."""
    if not os.path.exists(given):
        if not any(mark in given for mark in "[{"):
            raise UserError(f"no pose file {given[:200]!r}; give a file, or the text of a pose, such as [[x, y], ...]")
        return given, _TEXT
    try:
        return files.read(given, MOST_BYTES).decode("utf-8-sig"), given
    except OSError as error:
        raise UserError(f"{given} cannot be read: {error.strerror}; give a pose file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{given} is not text; give a pose file, or a photograph with --pose-of") from error


def _choose(people: list[np.ndarray], name: str, person: int | None) -> tuple[np.ndarray, str]:
    """Of people, the largest first, that one or the `person`-th, and what was chosen from."""
    if person is not None and person > len(people):
        raise TooFew(person, [f"{name} shows {_listed(people)}"])
    keypoints = people[(person or 1) - 1]
    there = int((keypoints != -1).all(1).sum())
    if len(people) == 1:
        return keypoints, f"{name}, {there} of 18 joints"
    which = f"person {person}" if person else "the largest; another by --person"
    return keypoints, f"{name} shows {_listed(people)}: {which}, {there} of 18 joints"


def _listed(people: list[np.ndarray]) -> str:
    """How many, and where the first few are."""
    if len(people) == 1:
        return "1 person"
    places = []
    for number, keypoints in enumerate(people[:4], 1):
        there = keypoints[(keypoints != -1).all(1)]
        (left, top), (right, bottom) = there.min(0), there.max(0)
        places.append(f"{number} at {left:.0f},{top:.0f} to {right:.0f},{bottom:.0f}")
    more = ", ..." if len(people) > len(places) else ""
    return f"{len(people)} people ({', '.join(places)}{more})"


def _named(images: list[People], wanted: str, name: str) -> People:
    """The one of a file's images that a name means, as it is there, or without folder and ending."""
    found = [one for one in images if one.name == wanted]
    found = found or [one for one in images if Path(one.name).stem == Path(wanted).stem]
    if not found:
        near = difflib.get_close_matches(wanted, [one.name for one in images], n=3)
        raise UserError(f"{name} has no image {wanted!r}; it has {', '.join(near or [one.name for one in images[:3]])}")
    if len(found) > 1:
        names = ", ".join(one.name for one in found[:3])
        raise UserError(
            f"{name} has {len(found):,} poses that --name {wanted} means, {names}; give one that is there once"
        )
    return found[0]


def _around(keypoints: np.ndarray, height: int, width: int, name: str) -> framing.Box:
    """The box around the person of the photograph `name`."""
    try:
        return framing.person_box(keypoints, height, width)
    except UserError as error:
        raise Nobody(f"{name}: {error}") from error


def _moved(box: framing.Box, factor: float) -> str:
    left, top, right, bottom = framing.scaled(box, factor)
    return f"taken from the box {left:.0f},{top:.0f},{right:.0f},{bottom:.0f} around the person"


def named(targets: list[Target]) -> list[Target]:
    """The same with names that files can have, and no two alike."""
    taken: set[str] = set()
    made = []
    for number, target in enumerate(targets, 1):
        name = plain(target.name) or f"pose-{number}"
        name = next(free for i in itertools.count(1) if (free := f"{name}-{i}" if i > 1 else name) not in taken)
        taken.add(name)
        made.append(target._replace(name=name))
    return made


def pictures_in(path: Path) -> list[Path]:
    """The photographs of a folder, by their endings, in the order of their names; or the path itself.

    Raises:
        UserError: the folder has none.
    """
    return _in_folder(path, endings(), "photograph") if path.is_dir() else [path]


def pose_files_in(given: str) -> list[str]:
    """The pose files of a folder (OpenPose writes one an image), by their endings; or what was given.

    Raises:
        UserError: the folder has none.
    """
    return (
        [str(path) for path in _in_folder(Path(given), POSE_ENDINGS, "pose file")] if os.path.isdir(given) else [given]
    )


def _in_folder(folder: Path, kinds: set[str], what: str) -> list[Path]:
    try:
        there = sorted(path for path in folder.iterdir() if path.name[0] != ".")
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from error
    found = [path for path in there if path.suffix.lower() in kinds]
    if not found:
        raise UserError(
            f"{folder} has no {what} in it, but {', '.join(path.name for path in there[:3]) or 'nothing'}; give a "
            "folder of photographs with --pose-of, one of pose files with --keypoints"
        )
    return found


def plain(name: str) -> str:
    """A name that came with a file as one for a new file: no folder, no ending, nothing odd; "" where that is all."""
    return re.sub(r"[^\w.-]+", "-", Path(name).stem).strip(".-")[:80]
