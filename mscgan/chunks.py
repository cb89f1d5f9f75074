"""Scores and features of many pairs, shared out over ranks and kept on the disk until all are there.

The table is cut into chunks of CHUNK pairs, whatever the number of ranks; rank r of W does every W-th. A chunk is one
file, written whole: so 1, 2 and 3 ranks have the same numbers, and a killed evaluation goes on with the next chunk.
"""

import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mscgan import dist, files
from mscgan.errors import say
from mscgan.evaluation_file import BASELINES
from mscgan.scored import Scored
from mscgan.scorers import Networks
from mscgan.scoring import Arrays, score_pixels
from mscgan.trained import BATCH

CHUNK = 256  # pairs
SAY_SECONDS = 30.0  # between two lines, where there is no terminal for a bar


class Chunks:
    """The chunk files of one evaluation, in its folder. Every rank makes one, and calls the methods alike."""

    def __init__(self, folder: Path, ranks: dist.Ranks | None):
        self._folder = folder
        self._rank, self._world = (ranks.rank, ranks.world) if ranks else (0, 1)
        self._meet: Callable[[], None] = dist.barrier if ranks else lambda: None
        self._from_rank_0: Callable[[bool], bool] = dist.from_rank_0 if ranks else lambda own: own

    def pairs(self, scored: Scored, scores: list[str], networks: Networks, cache: Path | None) -> Arrays | None:
        """Every pair's scores and features, (N, ...) in table order, on rank 0; None on the others.

        cache: the folder that keeps what the baselines' pixels score for the next evaluation of these pairs.
        """

        def do(rows: np.ndarray) -> Arrays:
            path = cache / f"{rows[0] // CHUNK:06d}.npz" if cache else None
            known = _kept(path, len(rows)) if path else None
            parts = []
            for batch in map(scored.batch, _parts(rows)):
                new = {method: made for method, made in batch.made.items() if not known or method not in BASELINES}
                found = score_pixels(batch._replace(made=new), scores, networks.device)
                parts.append((found, networks.of_batch(batch)))
            pixels = _joined([found for found, _ in parts]) | (known or {})
            if path and known is None:
                _keep(path, {name: rows for name, rows in pixels.items() if name.split("/")[0] in BASELINES})
            return pixels | _joined([found for _, found in parts])

        return self._all("pairs", len(scored.targets), do)

    def real(self, scored: Scored, networks: Networks, cache: Path) -> Arrays | None:
        """The features of the real images, (n, ...), on rank 0; None on the others.

        cache: the file that keeps them for the next evaluation with the same real images and networks.
        """
        kept = _kept(cache, scored.real) if self._rank == 0 else None
        if self._from_rank_0(kept is not None):
            return kept

        def do(rows: np.ndarray) -> Arrays:
            found = _joined([networks.features(scored.real_images(part)) for part in _parts(rows)])
            return {name: features for name, features in found.items() if name != "logits"}  # IS is of made images

        features = self._all("real", scored.real, do)
        if features is not None:
            _keep(cache, features)
        return features

    def _all(self, kind: str, count: int, do: Callable[[np.ndarray], Arrays]) -> Arrays | None:
        numbers = range(-(-count // CHUNK))
        with _Progress(kind, count, speaks=self._rank == 0) as progress:
            for first in range(0, len(numbers), self._world):  # they meet after each round: none waits for long
                mine = first + self._rank
                path = self._folder / f"{kind}-{mine:06d}.npz"
                if mine < len(numbers) and not _is_whole(path):
                    arrays = do(np.arange(mine * CHUNK, min(count, (mine + 1) * CHUNK)))
                    self._folder.mkdir(parents=True, exist_ok=True)
                    _write(path, arrays)
                self._meet()
                progress.reach(min(count, (first + self._world) * CHUNK))
        if self._rank:
            return None
        return _joined([_read(self._folder / f"{kind}-{number:06d}.npz") for number in numbers])


def _parts(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]


def _joined(parts: list[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def _write(path: Path, arrays: Arrays) -> None:
    try:
        with files.whole(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for its own options
    except OSError as error:  # of a full disk, it names no file
        raise OSError(error.errno, error.strerror, str(path)) from error


def _read(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _keep(path: Path, arrays: Arrays) -> None:
    """Writes a file of the cache, if that can be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, arrays)
    except OSError as error:
        say(f"warning: what an evaluation of the same images could use again is not kept: {error}")


def _kept(path: Path, count: int) -> Arrays | None:
    """The features or scores of `count` images that a file of the cache holds; None where it is not there, or says
    that it is none."""
    try:
        found = _read(path)
        if found and all(rows.dtype.kind == "f" and len(rows) == count for rows in found.values()):
            return found
        reason = "it holds something else"
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error)
    say(f"{path} cannot be used ({reason}), so its numbers are made again")
    return None


def _is_whole(path: Path) -> bool:
    """Whether a file is there; one that is damaged, as after a power cut, is made again."""
    if not path.exists():
        return False
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
    except zipfile.BadZipFile:
        damaged = path.name
    if damaged:
        say(f"{path} is damaged, so it is made again")
    return not damaged


class _Progress:
    """A bar on a terminal; elsewhere a line now and then."""

    def __init__(self, kind: str, count: int, speaks: bool):
        self._count, self._speaks = count, speaks
        self._what = "pairs scored" if kind == "pairs" else "real images seen"
        self._bar = tqdm(total=count, unit=" " + self._what.split()[0], disable=not (speaks and sys.stderr.isatty()))
        self._said = time.monotonic()

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def reach(self, done: int) -> None:
        self._bar.update(done - self._bar.n)
        if self._speaks and self._bar.disable and time.monotonic() - self._said > SAY_SECONDS:
            say(f"{done} of {self._count} {self._what}")
            self._said = time.monotonic()
