"""Which pair each file of a folder is of: by its name, the names that folders hold, and a list of pairs."""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from mscgan.data import annotations
from mscgan.data.names import flat, key
from mscgan.errors import UserError
from mscgan.output_names import EXAMPLES, WHOLE, Reading, evident, readings

IMAGES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")  # what is an image by its name
NAMED = 3  # of the files that an error is about; it says how many there are

Pair = tuple[str, str]  # source and target


class Folder:
    """The images of a folder and below it: their paths within it, and which of them a name means."""

    def __init__(self, root: Path, option: str):
        if not root.is_dir():
            raise UserError(f"{option} {root} is not a folder; give a folder of images")
        self.root, self.option = root, option
        self.names = sorted(
            Path(parent, name).relative_to(root).as_posix()
            for parent, _, names in os.walk(root, onerror=_refuse)
            for name in names
            if name.lower().endswith(IMAGES) and not name.startswith(".")
        )
        for name in self.names:
            try:
                name.encode()
            except UnicodeEncodeError as error:
                raise UserError(f"{option} {root} has a file whose name is no UTF-8: {name!a}; rename it") from error
        if not self.names:
            raise UserError(f"{option} {root} has no image ({', '.join(IMAGES[:3])}) in it or below")
        self._meant: dict[str, list[str]] = {}
        for name in self.names:
            for meant in {key(name), key(flat(name).rsplit("/", 1)[-1])}:
                self._meant.setdefault(meant, []).append(name)

    def __contains__(self, name: str) -> bool:
        return key(name) in self._meant

    def file(self, name: str) -> str:
        """The one file that a name means."""
        meant = self._meant[key(name)]
        if len(meant) > 1:
            raise UserError(
                f"{self.option} {self.root}: {name} may be {few(meant)}; leave one, or name it with its folder"
            )
        return meant[0]

    def name(self, file: str) -> str:
        """A file's own name, with its folders where another has it too."""
        short = flat(file).rsplit("/", 1)[-1]
        return short if len(self._meant[key(short)]) == 1 else file


def few(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more:,} more" if more > 0 else "")


def once(names: Iterable[str]) -> list[str]:
    """The names without repetitions, in order."""
    return list(dict.fromkeys(names))


def by_name(root: Path, names: list[str], targets: Folder | None, sources: Folder | None) -> list[tuple[str, Reading]]:
    """(file, how its name reads) in the order of `names`, by what the names say and which targets there are."""
    if targets is None:
        found = [(name, evident(name.rsplit("/", 1)[-1])) for name in names]
    else:
        there = targets  # which is not None in the function below

        def fits(reading: Reading) -> bool:
            return reading.target in there and (not (sources and reading.source) or reading.source in sources)

        found = [(name, _chosen(name, fits)) for name in names]
    if unread := [name for name, reading in found if reading is None]:
        if targets is None:
            raise UserError(f"{root}: {few(unread)} may be read in several ways; give --target DIR or --pairs CSV")
        both = f" or no source in {sources.root}" if sources else ""
        raise UserError(
            f"{root}: {few(unread)} have no target in {targets.root}{both}, which has {few(targets.names)}; a name is "
            f"such as {EXAMPLES} (in shards of your own pictures names are the keys of sources.csv there; their tars "
            "hold the images under these)"
        )
    read_ = [(name, reading) for name, reading in found if reading is not None]
    _refuse_two(root, read_, lambda reading: (key(reading.source), key(reading.target)))
    return read_


def by_list(root: Path, names: list[str], path: Path) -> list[tuple[str, Reading]]:
    """(file, its pair) for exactly the pairs of a list, in its order, names as the list has them."""
    wanted = _wanted(path)
    of_target: dict[str, list[Pair]] = {}
    for pair in wanted:
        of_target.setdefault(pair[1], []).append(pair)

    def fits(reading: Reading) -> bool:
        return pair_of(reading) in wanted if reading.source else key(reading.target) in of_target

    def pair_of(reading: Reading) -> Pair:
        target = key(reading.target)
        return (key(reading.source), target) if reading.source else of_target[target][0]

    found = [(name, _chosen(name, fits)) for name in names]
    if extra := [name for name, reading in found if reading is None]:
        raise UserError(f"{root}: {few(extra)} are of no pair of {path}; remove them, or give names such as {EXAMPLES}")
    read_ = [(name, reading) for name, reading in found if reading is not None]
    if several := [name for name, r in read_ if not r.source and len(of_target[key(r.target)]) > 1]:
        raise UserError(
            f"{root}: {few(several)} name a target that {path} has in several pairs; name them source and target, as "
            "a.jpg_b.jpg.png"
        )
    _refuse_two(root, read_, pair_of)
    of_pair = {pair_of(reading): (name, reading) for name, reading in read_}
    if missing := [f"{source},{target}" for pair, (source, target) in wanted.items() if pair not in of_pair]:
        raise UserError(f"{root} has no image of {few(missing)} of {path}; make them, or take them from the list")
    return [
        (of_pair[pair][0], replace(of_pair[pair][1], source=source, target=target))
        for pair, (source, target) in wanted.items()
    ]


def _wanted(path: Path) -> dict[Pair, Pair]:
    """The pairs of a list: their keys, in order -> their names."""
    listed = [(source, target) for _, source, target in annotations.read_list(path)]
    wanted = {(key(source), key(target)): (source, target) for source, target in listed}
    if len(wanted) < len(listed):
        times = Counter((key(source), key(target)) for source, target in listed)
        twice = [",".join(wanted[pair]) for pair, n in times.items() if n > 1]
        raise UserError(f"{path} has {few(twice)} more than once; remove the copies")
    return wanted


def _chosen(name: str, fits: Callable[[Reading], bool]) -> Reading | None:
    """How a file's name reads, with its folders or without: in the first form in which a reading fits.

    Raises:
        UserError: two fit.
    """
    for found in ([Reading("", name, WHOLE)], *readings(name.rsplit("/", 1)[-1])):
        fitting = [reading for reading in found if fits(reading)]
        if len(fitting) > 1:
            ways = " or ".join(f"{reading.source} -> {reading.target}" for reading in fitting[:NAMED])
            raise UserError(f"{name} may be {ways}; give --pairs CSV, or names such as a.jpg_b.jpg.png")
        if fitting:
            return fitting[0]
    return None


def _refuse_two(root: Path, found: list[tuple[str, Reading]], pair_of: Callable[[Reading], Pair]) -> None:
    times = Counter(pair_of(reading) for _, reading in found)
    if doubled := [name for name, reading in found if times[pair_of(reading)] > 1]:
        raise UserError(f"{root}: {few(doubled)} show a pair that another file shows too; leave one of each")


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename} cannot be read: {error.strerror}; let this user read it") from error
