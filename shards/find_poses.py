"""Finds the poses of a user's pictures with an estimator, over processes.

Each pose is kept as soon as it is found, by the checksum of the picture's bytes: a search that was stopped goes on, and
no bytes are searched twice.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mscgan import files
from mscgan.errors import UserError
from mscgan.estimators import ESTIMATORS, Estimator, digest, largest_first, open_estimator
from mscgan.photos import read_photo
from shards.digest import sha256
from shards.parallel import mapper

KEPT = "found-poses.jsonl"  # in OUT/.build
NOBODY = [[-1, -1]] * 18
ON_A_GPU = 4  # processes that share one, each with its own copy of the network


def identity(estimator: str) -> dict[str, str]:
    """What says that two searches would find the same: the estimator's name, or the SHA-256 of its weights.

    Raises:
        UserError: no such estimator, or weights that cannot be read.
    """
    if estimator in ESTIMATORS:
        return {"estimator": estimator}
    return {"estimator": "paf", "sha256": digest(estimator)}  # wherever they lie


def find_poses(pictures: dict[Path, str], estimator: str, kept: Path, workers: int) -> tuple[dict[str, list], int]:
    """SHA-256 of a picture's bytes -> 18 [x, y] of its largest person, in pixels of the upright picture, [-1, -1] where
    missing, NOBODY where there is nobody; and in how many pictures there are several people.

    pictures: path -> SHA-256. kept: the file of what was found before.

    Raises:
        UserError: the estimator cannot be opened, or a picture cannot be read, or was changed meanwhile; says which.
    """
    about = identity(estimator)
    found = _read(kept, about)
    here = {digest: path for path, digest in pictures.items()}
    missing = {digest: path for digest, path in here.items() if digest not in found}
    if missing:
        _opened(estimator, 0)  # what it lacks is said once, before the processes start
        workers = min(workers, len(missing), ON_A_GPU if _on_a_gpu() else workers)
        jobs = [(path, digest, estimator, 1 if workers > 1 else 0) for digest, path in missing.items()]
        with mapper(workers) as run, _bar(len(here), len(here) - len(missing)) as bar:
            for digest, (keypoints, people) in zip(missing, run(_find, jobs), strict=True):
                found[digest] = keypoints, people
                record = {**about, "image": digest, "people": people, "keypoints": keypoints}
                files.append(kept, json.dumps(record) + "\n")
                bar.update()
    several = sum(found[digest][1] > 1 for digest in here)
    return {digest: found[digest][0] for digest in here}, several


def _bar(total: int, done: int) -> tqdm:
    return tqdm(total=total, initial=done, unit="image", desc="poses")


def _find(job: tuple[Path, str, str, int]) -> tuple[list, int]:
    """The keypoints of the picture's largest person, and how many people there are."""
    path, digest, estimator, threads = job
    data = content(path, digest)
    photo = read_photo(data, str(path))
    people = largest_first(person.keypoints for person in _opened(estimator, threads)(photo.pixels))
    if not people:
        return NOBODY, 0
    points = people[0].astype(float)
    scale = np.divide(photo.size, photo.pixels.shape[1::-1])
    moved = (points + 0.5) * scale - 0.5
    inside = (points != -1).all(1) & (moved >= -0.5).all(1) & (moved <= np.subtract(photo.size, 0.5)).all(1)
    places = moved.clip(0, np.subtract(photo.size, 1)).round(1).tolist()
    return [place if there else [-1, -1] for place, there in zip(places, inside, strict=True)], len(people)


def content(path: Path, digest: str) -> bytes:
    """A picture's bytes.

    Raises:
        UserError: they cannot be read, or are not those of the digest any more.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; mend that, or remove it and go without") from error
    if sha256(data) != digest:
        raise UserError(f"{path} was changed while the shards were built; give the same command again")
    return data


@cache
def _opened(estimator: str, threads: int) -> Estimator:
    """The estimator, once a process. threads: of torch, 0 for as many as it takes."""
    if threads:
        import torch

        torch.set_num_threads(threads)
    return open_estimator(estimator)


def _on_a_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _read(kept: Path, about: dict[str, str]) -> dict[str, tuple[list, int]]:
    """What this estimator has found, by the picture's SHA-256. Lines that were cut by a crash are removed."""
    try:
        lines = kept.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    records = {line: record for line in lines if (record := _record(line))}
    if len(records) < len(lines):
        files.write(kept, "".join(f"{line}\n" for line in records))
    return {
        record["image"]: (record["keypoints"], record["people"])
        for record in records.values()
        if {key: record.get(key) for key in ("estimator", "sha256") if key in record} == about
    }


def _record(line: str) -> dict | None:
    try:
        record = json.loads(line)
        whole = np.shape(record["keypoints"]) == (18, 2) and type(record["people"]) is int and record["image"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return record if whole else None
