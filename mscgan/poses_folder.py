"""The field's keypoint file of a folder of images, found by an estimator, over ranks (torchrun, srun).

Each image's row goes to the disk when it is found, into a folder beside the file, by the estimator and the image's
size and time. So a killed command goes on where it was, with any number of ranks; an image that was replaced is done
again. Like the field's files, coordinates are truncated to whole pixels, and where nobody is found all are -1.
"""

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from mscgan import dist, files, lease
from mscgan.checks import check_place
from mscgan.data.annotations import HEADER
from mscgan.errors import UserError
from mscgan.estimators import ESTIMATORS, Estimator, digest, in_photo, open_estimator
from mscgan.name_matching import few
from mscgan.photos import endings, read_photo
from mscgan.step import take_ranks

LARGEST = 4 << 30  # bytes of a file that is read
Result = TypeVar("Result")


def annotate(folder: Path, out: Path, estimator: str) -> None:
    """Writes `out`; every rank calls it.

    Raises:
        UserError: no folder, no image in it, a name that the file cannot hold; `out` is there or cannot be written;
            what open_estimator raises; an image that cannot be read, after all others are done.
    """
    check_place(out, "--out")
    names = _names(folder)
    take_ranks()
    ranks = dist.init() if os.environ.get("WORLD_SIZE", "1") != "1" else None
    if ranks:
        dist.take_cores(ranks)
    parts = out.with_name(f".{out.name}.{_digest(estimator)}")
    owner = _on_rank_0(ranks, lambda: _own(out))
    try:
        left = _on_rank_0(ranks, lambda: _left(folder, names, parts))
        left = dist.from_rank_0(left) if ranks else left
        assert left is not None, "rank 0 has said it"
        broken = _find(folder, left, parts, open_estimator(estimator), ranks) if left else []
        broken = [line for lines in dist.gather(broken) for line in lines] if ranks else broken
        if broken:
            raise UserError(
                f"{len(broken):,} of {len(names):,} images cannot be read: {few(broken)}. Mend or remove them and run "
                "again; what was found in the others is kept"
            )
        _on_rank_0(ranks, lambda: _finish(folder, names, parts, out))
    finally:
        if owner:
            owner.release()
    if ranks:
        dist.shutdown()


def _names(folder: Path) -> list[str]:
    """The images of a folder and below it, by their paths in it."""
    if not folder.is_dir():
        raise UserError(f"--folder {folder} is not a folder; give a folder of images")
    pictures = endings()
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in pictures and not path.name.startswith(".") and path.is_file()
    )
    if not names:
        raise UserError(f"--folder {folder} has no image (.jpg, .png, .webp and others) in it or below")
    if strange := [name for name in names if ":" in name or not name.isprintable()]:
        raise UserError(f"{few(strange)}: a colon or control character in a name breaks a keypoint file; rename them")
    return names


def _digest(estimator: str) -> str:
    """Of what finds the poses: rows of another one are not gone on with."""
    return (hashlib.sha256(estimator.encode()).hexdigest() if estimator in ESTIMATORS else digest(estimator))[:16]


def _own(out: Path) -> lease.Lease:
    if out.exists():
        raise UserError(f"{out} is there already; give another --out, or remove it to have it made anew")
    out.parent.mkdir(parents=True, exist_ok=True)
    return lease.take(out.parent, f".{out.name}.lease")


def _on_rank_0(ranks: dist.Ranks | None, action: Callable[[], Result]) -> Result | None:
    return dist.on_rank_0(action) if ranks else action()


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _done(folder: Path, parts: Path) -> dict[str, str]:
    """The rows of the images that were done and are as they were."""
    rows = {}
    for part in parts.glob("*.jsonl"):
        for line in files.read(part, LARGEST).splitlines():
            try:
                name, stamp, row = json.loads(line)
            except ValueError:
                continue  # a line that was being written when the machine went down
            path = folder / name
            if path.is_file() and _stamp(path) == stamp:
                rows[name] = row
    return rows


def _left(folder: Path, names: list[str], parts: Path) -> list[str]:
    parts.mkdir(exist_ok=True)
    done = _done(folder, parts)
    left = [name for name in names if name not in done]
    print(f"{len(names):,} images in {folder}" + (f", {len(done):,} of them done before" if done else ""))
    return left


def _find(folder: Path, left: list[str], parts: Path, estimate: Estimator, ranks: dist.Ranks | None) -> list[str]:
    """Does this rank's share of what is left. Returns a line for each image that cannot be read."""
    rank, world = (ranks.rank, ranks.world) if ranks else (0, 1)
    number = sum(1 for _ in parts.glob(f"{rank:04d}-*.jsonl"))
    part = parts / f"{rank:04d}-{number:04d}.jsonl"  # new each time: not behind a line that broke off
    broken = []
    bar = tqdm(total=len(left), unit=" images", disable=not (rank == 0 and sys.stderr.isatty()))
    for first in range(0, len(left), world):  # they meet after each round: none waits for long at the end
        for name in left[first + rank : first + rank + 1]:
            path = folder / name
            try:
                stamp, photo = _stamp(path), read_photo(path)
            except (UserError, FileNotFoundError) as error:
                broken.append(str(error))
                continue
            people = in_photo(estimate, photo)
            row = _row(name, people[0].keypoints if people else None)
            files.append(part, json.dumps([name, stamp, row]) + "\n")
        if ranks:
            dist.barrier()
        bar.update(min(world, len(left) - first))
    bar.close()
    return broken


def _row(name: str, keypoints: np.ndarray | None) -> str:
    whole = np.full((18, 2), -1) if keypoints is None else keypoints.astype(int)
    xs, ys = whole.T.tolist()
    return f"{name}: {ys}: {xs}"


def _finish(folder: Path, names: list[str], parts: Path, out: Path) -> None:
    rows = _done(folder, parts)
    if changed := [name for name in names if name not in rows]:
        raise UserError(f"{few(changed)} changed meanwhile; run again, the others are kept")
    nobody = sum("[" + ", ".join(["-1"] * 18) + "]" in row for row in rows.values())
    files.write(out, "\n".join([HEADER, *(rows[name] for name in names)]) + "\n")
    for path in out.parent.iterdir():  # of this estimator, and what others left undone
        if re.fullmatch(rf"{re.escape(f'.{out.name}.')}[0-9a-f]{{16}}", path.name) and path.is_dir():
            shutil.rmtree(path)
    print(f"{out}: {len(names):,} images; nobody was found in {nobody:,}")
