"""Plans shards of annotated photographs (Market-1501, DeepFashion): which images, which pairs, and what is left out."""

import io
import json
import struct
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image as Picture

from mscgan import files
from mscgan.data import jpeg
from mscgan.data.annotations import Annotation, read, read_list
from mscgan.data.rgb import rgb
from mscgan.errors import UserError
from mscgan.photos import ORIENTATION
from shards.digest import file_sha256, sha256
from shards.pairs import by_hash, ordered_pairs, sample, usable
from shards.write import Image, Plan, Sample, Split

MISSING = "missing-images.txt"
READERS = 16  # threads: on a shared file system a small file is mostly waited for


@dataclass
class _Rows:
    """A split's annotation: all rows, the usable ones, whom they show, and which have a file."""

    path: Path
    rows: list[Annotation]
    kept: list[Annotation]
    persons: list[str]
    paths: list[Path | None]
    shows_nobody: bool  # in some of its rows: junk, distractors


def plan(
    dataset,
    images: Path,
    annotations: dict[str, Path],
    lists: list[Path],
    draw: int | None,
    seed: int,
    validation: int = 0,
) -> tuple[Plan, list[str]]:
    """The plan and a report of what it takes and leaves, a line each.

    dataset: a module of pairs.DATASETS. annotations: keypoint file of each split ("train", "test"), one at least.
    lists: from,to files, each for the split whose annotation names its images; a split without a file takes all
    ordered pairs. draw: that many of the test pairs (of the train pairs, if there is no test annotation), by `seed`.
    validation: so many of the train persons that have a pair become a split of their own, with all their pairs: those
    whose item (dataset.item) has the smallest SHA-256. An item is not divided, so there may be a few more.

    Raises:
        UserError: a missing or broken file, a list that does not fit, a person in both splits, nothing to build.
    """
    if validation < 0 or (validation and "train" not in annotations):
        raise UserError(
            f"--validation {validation}: give a number of persons of train to hold out, and --annotations CSV of train"
        )
    pictures = _pictures(dataset, images)
    found = {split: _read(dataset, path, pictures) for split, path in annotations.items()}
    _refuse_swapped(found, images)
    _refuse_shared_persons(found)
    listed = _match(lists, found, dataset)
    drawn = list(found)[-1] if draw else None
    if drawn in listed:
        raise UserError(
            f"--sample draws the {drawn} pairs, which {listed[drawn][0]} already gives; leave out one of them"
        )

    splits, report, missing, reasons = {}, [], [], {}
    for split, rows in found.items():
        if split in listed:
            pairs = _listed_pairs(*listed[split], rows, dataset, report)
        else:
            pairs = ordered_pairs(rows.persons)
        if not any(rows.paths[i] and rows.paths[j] for i, j in pairs):
            reasons[split] = _why_none(rows, len(pairs), images, pictures)
        holds_out = split == "train" and validation and split not in reasons
        held_out = _held_out(rows, pairs, validation, dataset.item) if holds_out else set()
        held = np.array([rows.persons[source] in held_out for source, _ in pairs], bool)
        kept = sample(pairs[~held], draw, seed) if split == drawn else pairs[~held]
        splits[split] = _present(rows, kept, dataset.flat, set(rows.persons) - held_out)
        if held_out:
            splits["validation"] = _present(rows, pairs[held], dataset.flat, held_out)
        absent = [row.name for row, path in zip(rows.kept, rows.paths, strict=True) if path is None]
        missing += absent
        report += _report(split, rows, len(kept) + held.sum(), splits[split], absent)
        if held_out:
            made = splits["validation"]
            report.append(
                f"validation: {len(made.images):,} images of {len({image.person for image in made.images}):,} "
                f"persons held out of train, "
                f"{len(made.pairs):,} pairs"
            )
    if ignored := len(pictures.keys() - set.union(*(_names(rows, dataset) for rows in found.values()))):
        report.append(f"{ignored:,} pictures in {images} that no annotation names: ignored")
    splits = {split: made for split, made in splits.items() if len(made.pairs)}
    if not splits or (validation and "train" in reasons):
        raise UserError("no pair to build; " + "; ".join(f"{split}: {reason}" for split, reason in reasons.items()))
    report += [f"the {split} split has no pair and is left out: {reason}" for split, reason in reasons.items()]
    report += _swapped_perhaps(found)
    source = {
        "annotations": {split: _provenance(rows.path) for split, rows in found.items()},
        "pair_lists": {split: _provenance(path) for split, (path, _) in listed.items()},
        "sample": draw and {"split": drawn, "pairs": draw, "seed": seed},
    }
    made_from = "".join(image.made_from for split in splits.values() for image in split.images)
    found_files = {"images_sha256": sha256(made_from.encode()), "missing_images": len(missing)}
    if validation:
        source["validation"] = {"persons": validation, "rule": "the smallest SHA-256 of the item, items undivided"}
    make = partial(photograph, height=dataset.HEIGHT, width=dataset.WIDTH)
    notes = {MISSING: "".join(f"{name}\n" for name in missing)} if missing else {}
    return Plan(
        dataset.NAME, dataset.HEIGHT, dataset.WIDTH, source, splits, make, notes, found_files, dataset.item
    ), report


def _pictures(dataset, images: Path) -> dict[str, Path]:
    """The data set's pictures in the folder, by name.

    Raises:
        UserError: no such folder, or none of them in it.
    """
    if not images.is_dir():
        raise UserError(f"--images {images} is not a folder; give the folder of the {dataset.NAME} pictures")
    try:
        pictures = dataset.files(images)
        holds = ", ".join(sorted(path.name for path in images.iterdir())[:3])
    except OSError as error:
        raise UserError(f"--images {images} cannot be read: {error.strerror}") from error
    if not pictures:
        raise UserError(
            f"--images {images} has no .jpg file of {dataset.NAME}, but {holds or 'nothing'}; the pictures must lie "
            f"{dataset.PLACES}"
        )
    return pictures


def _swapped_perhaps(found: dict) -> list[str]:
    """A warning where far more people are for testing than for training."""
    persons = {split: len(set(rows.persons)) for split, rows in found.items()}
    if len(persons) < 2 or persons["test"] <= 2 * persons["train"]:
        return []
    return [
        f"warning: {persons['test']:,} persons are for testing and {persons['train']:,} for training; are "
        "--annotations and --test-annotations the wrong way round?"
    ]


def photograph(recipe: tuple[str, str, list], height: int, width: int) -> Sample:
    """The picture recipe = (path, name, keypoints): its own bytes if training takes them and no viewer turns them,
    else saved as an RGB JPEG.

    Raises:
        UserError: no picture, a damaged one, or one of another size.
    """
    path, name, keypoints = recipe
    data = _content(Path(path))
    return Sample(name, keypoints, data if as_it_is(data, height, width) else _saved_again(path, data, height, width))


def as_it_is(data: bytes, height: int, width: int) -> bool:
    """Whether the bytes may lie in a shard: training takes them and no viewer turns them."""
    try:
        jpeg.decode(data, height, width)
        with Picture.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            # other decoders turn a picture as its EXIF says; the keypoints belong to the pixels as they lie
            return picture.format == "JPEG" and picture.mode == "RGB" and picture.getexif().get(ORIENTATION, 1) == 1
    except (OSError, SyntaxError, ValueError, struct.error):  # arithmetic coding, say: Pillow may read it all the same
        return False


def _saved_again(path: str, data: bytes, height: int, width: int) -> bytes:
    """An RGB JPEG of what Pillow makes of the bytes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Picture.DecompressionBombWarning)
            picture = Picture.open(io.BytesIO(data), formats=("JPEG", "PNG"))
            if picture.size != (width, height):
                raise UserError(
                    f"{path} is {picture.height}x{picture.width} (height x width); expected {height}x{width}: the "
                    "keypoints are in pixels of that size"
                )
            again = io.BytesIO()
            rgb(picture).save(again, "JPEG", quality=95, exif=b"")
    except UserError:  # which is a ValueError
        raise
    except (OSError, SyntaxError, ValueError, struct.error, Picture.DecompressionBombError, Warning) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} is not a whole JPEG ({reason}); fetch it again, or remove it and go without"
        ) from error
    return again.getvalue()


def _content(path: Path) -> bytes:
    try:
        return files.read(path, jpeg.LARGEST)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}; fetch it again, or remove it and go without"
        ) from error


def _read(dataset, path: Path, pictures: dict[str, Path]) -> _Rows:
    rows = read(path, dataset.HEIGHT, dataset.WIDTH)
    kept, persons = usable(rows, dataset)
    nobody = any(dataset.person(dataset.flat(row.name)) is None for row in rows)
    return _Rows(path, rows, kept, persons, [pictures.get(dataset.flat(row.name)) for row in kept], nobody)


def _names(rows: _Rows, dataset) -> set[str]:
    """Flat names of all rows, also of those that are not usable."""
    return {dataset.flat(row.name) for row in rows.rows}


def _refuse_shared_persons(found: dict[str, _Rows]) -> None:
    both = set.intersection(*(set(rows.persons) for rows in found.values())) if len(found) == 2 else set()
    if both:
        raise UserError(
            f"{len(both)} persons, {min(both)} for one, are in both annotations; test people must not be trained on"
        )


def _refuse_swapped(found: dict[str, _Rows], images: Path) -> None:
    """UserError where the train annotation shows that it is of test: by its name, by where its pictures lie, or by
    rows that only test has."""
    if "train" not in found:
        return
    train = found["train"]
    here = [path for path in train.paths if path]
    in_test = sum(not {"test", "bounding_box_test"}.isdisjoint(path.relative_to(images).parts[:-1]) for path in here)
    why = ""
    if "test" in train.path.stem and "train" not in train.path.stem:
        why = "by its name"
    elif here and (images.name == "bounding_box_test" or in_test > len(here) / 2):
        why = "by the folder of its pictures"
    elif "train" in train.path.stem:
        return
    elif "test" in found and train.shows_nobody and not found["test"].shows_nobody:
        why = "by its junk and distractors, of which the other file has none"
    if why:
        other = f", and {found['test'].path} with --annotations" if "test" in found else ""
        raise UserError(f"{train.path} is of the test split, {why}; give it with --test-annotations{other}")


def _why_none(rows: _Rows, pairs: int, images: Path, pictures: dict[str, Path]) -> str:
    """Why a split has no pair to build, and what to do."""
    here = [person for person, path in zip(rows.persons, rows.paths, strict=True) if path]
    if not rows.kept:
        joints = sum(not row.usable for row in rows.rows)
        return (
            f"0 of {len(rows.rows):,} rows of {rows.path.name} are usable: {joints:,} lack a hip or a shoulder, the "
            "rest show nobody known; give the data set's keypoint file"
        )
    if not here:
        return (
            f"0 of the {len(rows.kept):,} images that {rows.path.name} names, {rows.kept[0].name} for one, are in "
            f"{images}, which has {len(pictures):,}, {min(pictures)} for one; give the folder of these images, or the "
            "keypoint file of that folder"
        )
    return (
        f"{f'none of {pairs:,} pairs has both its images' if pairs else 'no person has two usable images'}: "
        f"{len(here):,} images of {len(set(here)):,} persons are in {images}, {len(rows.kept) - len(here):,} that "
        f"{rows.path.name} names are missing; fetch more of them"
    )


def _match(lists: list[Path], found: dict[str, _Rows], dataset) -> dict[str, tuple[Path, list]]:
    """split -> (path, rows) of the list whose first source image the split's annotation names."""
    matched = {}
    for path in lists:
        pairs = read_list(path)
        number, source, _ = pairs[0]
        of = [split for split, rows in found.items() if dataset.flat(source) in _names(rows, dataset)]
        if not of:
            names = " or ".join(str(rows.path) for rows in found.values())
            raise UserError(f"{path} line {number}: {source} is not in {names}; give the list of the same images")
        if of[0] in matched:
            raise UserError(f"{matched[of[0]][0]} and {path} both list {of[0]} pairs; give one list a split")
        matched[of[0]] = (path, pairs)
    return matched


def _listed_pairs(path: Path, listed: list, rows: _Rows, dataset, report: list[str]) -> np.ndarray:
    """(P, 2) indices into rows.kept of a list's pairs; pairs with an image that is not usable are counted out."""
    every = _names(rows, dataset)
    index = {dataset.flat(row.name): i for i, row in enumerate(rows.kept)}
    pairs = []
    for number, *names in listed:
        ends = [dataset.flat(name) for name in names]
        for end, name in zip(ends, names, strict=True):
            if end not in every:
                raise UserError(f"{path} line {number}: {name} is not in {rows.path}")
        if ends[0] in index and ends[1] in index:
            i, j = index[ends[0]], index[ends[1]]
            if rows.persons[i] != rows.persons[j] or i == j:
                raise UserError(f"{path} line {number}: {names[0]} and {names[1]} are not two images of one person")
            pairs.append((i, j))
    if len(pairs) < len(listed):
        left = len(listed) - len(pairs)
        report.append(f"{left:,} of {len(listed):,} pairs in {path.name} name unusable images: left out")
    return np.array(pairs, np.int64).reshape(-1, 2)


def _held_out(rows: _Rows, pairs: np.ndarray, count: int, item: Callable[[str], str]) -> set[str]:
    """The first `count` persons, and the rest of the last one's item, by the SHA-256 of the item; of those with a pair.

    Raises:
        UserError: nobody would be left to train on.
    """
    paired = {rows.persons[i] for i, j in pairs if rows.paths[i] and rows.paths[j]}
    items = {item(person) for person in by_hash(paired, item)[:count]}
    held_out = {person for person in rows.persons if item(person) in items}
    if not paired - held_out:
        raise UserError(
            f"--validation {count}: train has {len(paired)} persons with a pair; give a number that leaves some of "
            "them to train on"
        )
    return held_out


def _present(rows: _Rows, pairs: np.ndarray, flat: Callable[[str], str], people: set[str]) -> Split:
    """The images of these people that have a file, grouped by person, and the pairs (all theirs) among them."""
    groups: dict[str, list[int]] = {}
    for i, (person, path) in enumerate(zip(rows.persons, rows.paths, strict=True)):
        if path is not None and person in people:
            groups.setdefault(person, []).append(i)
    order = [i for group in groups.values() for i in group]
    place = np.full(len(rows.kept), -1)
    place[order] = np.arange(len(order))
    with ThreadPoolExecutor(READERS) as pool:
        contents = list(pool.map(lambda i: sha256(_content(rows.paths[i])), order))
    images = []
    for i, content in zip(order, contents, strict=True):
        row = rows.kept[i]
        made_from = json.dumps([row.name, content, row.keypoints])
        recipe = (str(rows.paths[i]), row.name, row.keypoints)
        images.append(Image(flat(row.name).split(".")[0], rows.persons[i], recipe, made_from))
    pairs = place[pairs]
    return Split(images, pairs[(pairs >= 0).all(axis=1)])


def _report(split: str, rows: _Rows, pairs: int, made: Split, absent: list[str]) -> list[str]:
    here = len({image.person for image in made.images})
    lines = [
        f"{split}: {len(rows.rows):,} rows, {len(rows.kept):,} usable (known person, hips and shoulders found), "
        f"{len(set(rows.persons)):,} persons, {pairs:,} pairs",
        f"{split}: {len(made.images):,} images of {here:,} persons found, {len(made.pairs):,} pairs",
    ]
    if absent:
        few = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        lines.append(f"{split}: {len(absent):,} images missing, all named in {MISSING}: {few}")
    return lines


def _provenance(path: Path) -> dict[str, str]:
    return {"file": path.name, "sha256": file_sha256(path)}
