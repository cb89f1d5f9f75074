"""Re-reads a folder of shards and names every fault by file and key; exit code 1 if there is one.

    python shards/verify.py DIR

Checked: manifest, checksums, indices, the tars' members, each image's decoding and size, keypoints inside the image,
the table of images against the tars, grouping by person, no person in two splits, pairs of two images of one person.
"""

import argparse
import os
import sys
from collections import Counter
from itertools import groupby
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mscgan import files
from mscgan.arguments import Parser
from mscgan.data.manifest import read_manifest
from mscgan.data.tables import image_record, image_table, pair_table
from mscgan.errors import UserError, run
from mscgan.paths import a_path
from shards.digest import sha256
from shards.finished import wrong
from shards.parallel import mapper, stoppable
from shards.verify_tar import Record, TarReport, read_tar


def verify(root: Path, workers: int) -> tuple[list[str], list[tuple]]:
    """(faults, rows of the table: split, tars, images, persons, pairs, megabytes).

    Raises:
        UserError: no such folder, or one without a manifest, which is no finished folder of shards.
    """
    manifest = read_manifest(root)
    if not manifest["splits"]:
        raise UserError(f"{root}/manifest.json names no split; build the folder again")
    size = manifest["height"], manifest["width"]
    jobs = [(root, tar, name, *size) for name, split in manifest["splits"].items() for tar in split["tars"]]
    with mapper(min(workers, len(jobs))) as run_all:
        done = iter(list(tqdm(run_all(read_tar, jobs), total=len(jobs), unit="tar", desc="verify")))
    faults, rows = [], []
    first_tar: dict[str, str] = {}  # of each key
    first_split: dict[str, str] = {}  # of each person
    for name, split in manifest["splits"].items():
        tars = [(tar, next(done)) for tar in split["tars"]]
        faults += [fault for _, report in tars for fault in report.faults]
        for tar, report in tars:
            for key in report.keys:
                if key in first_tar:
                    faults.append(f"{tar['name']}:{key}: the key is also in {first_tar[key]}")
                first_tar.setdefault(key, tar["name"])
        records = [record for _, report in tars for record in report.records]
        persons = [record.person for record in records]
        for person in sorted(set(persons) - {""}):
            if first_split.setdefault(person, name) != name:
                faults.append(f"{name}: person {person!r} is also in {first_split[person]}")
        if all(len(report.keys) == tar["images"] for tar, report in tars):
            faults += _check_split(root, name, split, tars, records)
        else:  # which images the tables' rows are of nobody can say, but whether they are whole
            tables = split["image_table"], split["pair_table"]
            faults += [f"{t['name']}: {why}" for t in tables if (why := wrong(root / t["name"], t["sha256"]))]
        megabytes = sum(tar["bytes"] for tar in split["tars"]) / 1e6
        rows.append((name, len(tars), len(persons), len(set(persons)), split["pairs"], megabytes))
    return faults, rows


def _check_split(
    root: Path, name: str, split: dict, tars: list[tuple[dict, TarReport]], records: list[Record]
) -> list[str]:
    faults, persons = [], [record.person for record in records]
    if (len(persons), len(set(persons))) != (split["images"], split["persons"]):
        faults.append(
            f"manifest.json: {name} has {split['images']} images of {split['persons']} persons; "
            f"the tars hold {len(persons)} of {len(set(persons))}"
        )
    blocks = Counter(person for person, _ in groupby(persons))
    faults += [f"person {person}: the images are not together" for person, times in blocks.items() if times > 1]
    places = [f"{tar['name']}:{key}" for tar, report in tars for key in report.keys]
    return faults + _check_images(root, split, records, places) + _check_pairs(root, split, persons, places)


def _table(root: Path, table: dict, limit: int) -> bytes:
    """A table's bytes; ValueError in a few words where they are not those of the manifest."""
    try:
        data = files.read(root / table["name"], limit)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    if sha256(data) != table["sha256"]:
        raise ValueError("its bytes do not fit the checksum in manifest.json")
    return data


def _check_images(root: Path, split: dict, records: list[Record], places: list[str]) -> list[str]:
    name, rows = split["image_table"]["name"], len(records)
    try:
        data = _table(root, split["image_table"], image_record().itemsize * rows + 4096)
        keypoints, names, persons = image_table(data, rows)
    except ValueError as error:
        return [f"{name}: {error}"]
    return [
        f"{name}: row {row} is not what {place}.json says"
        for row, (place, record) in enumerate(zip(places, records, strict=True))
        if record != Record()  # a fault already
        and (
            (names[row], persons[row]) != (record.name, record.person)
            or not np.array_equal(keypoints[row], np.array(record.keypoints, np.float32))
        )
    ]


def _check_pairs(root: Path, split: dict, persons: list[str], places: list[str]) -> list[str]:
    name = split["pair_table"]["name"]
    try:
        pairs = pair_table(_table(root, split["pair_table"], 8 * split["pairs"] + 4096), split["pairs"])
    except ValueError as error:
        return [f"{name}: {error}"]
    inside = ((pairs >= 0) & (pairs < len(persons))).all(axis=1)
    images = f"in 0-{len(persons) - 1}" if persons else "of the split, which has no image"
    faults = [f"{name}: row {row}: {pairs[row].tolist()} is not {images}" for row in np.flatnonzero(~inside)]
    if not persons:
        return faults
    person = np.unique(persons, return_inverse=True)[1]
    i, j = np.where(inside[:, None], pairs, 0).T
    for row in np.flatnonzero(inside & ((i == j) | (person[i] != person[j]))):
        faults.append(f"{name}: row {row}: {places[i[row]]} and {places[j[row]]} are not two images of one person")
    return faults


def main() -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=a_path, metavar="DIR")
    parser.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes (as many as cores)"
    )
    a = parser.parse_args()
    faults, rows = verify(a.root, a.workers)
    print(f"{'split':<10} {'tars':>5} {'images':>8} {'persons':>8} {'pairs':>9} {'MB':>8}")
    for name, tars, images, persons, pairs, megabytes in rows:
        print(f"{name:<10} {tars:>5,} {images:>8,} {persons:>8,} {pairs:>9,} {megabytes:>8.1f}")
    for fault in faults:
        print(f"fault: {fault}")
    print(f"{a.root}: {len(faults)} faults" if faults else f"{a.root}: no fault")
    return 1 if faults else 0


if __name__ == "__main__":
    run(lambda: stoppable(main, "nothing was changed"))
