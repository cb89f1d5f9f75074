"""Folders of anyone's images, matched by name and never by order: what to score against what.

`match` reads the names and the heads of files, finds for each generated image its target and its source, and refuses
what does not fit before any work is done; `read` decodes one row. The names are those of mscgan/output_names.py. A
picture is taken as it lies (data/plain_rgb.py).
"""

import filecmp
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mscgan.data import annotations, plain_rgb
from mscgan.data.manifest import read_manifest
from mscgan.data.names import key, person
from mscgan.data.shards import ShardSet
from mscgan.errors import UserError
from mscgan.name_matching import Folder, by_list, by_name, few, once
from mscgan.output_names import ALONE, Panels, Reading, is_copy

READERS = 16  # threads: on a shared file system a small file is mostly waited for
RGB = "write it again as a JPEG or PNG with 8 bits of red, green and blue"


@dataclass(frozen=True)
class Row:
    """A pair to score.

    key: the generated file, relative to its folder. source, target: names of images; source is "" where nobody says
    whose it was. person: whom the target shows (data/names.py), for the bootstrap. target_path and source_path are None
    for a picture that is a panel of the generated file, or (the source) nowhere.
    """

    key: str
    source: str
    target: str
    person: str
    generated_path: Path
    target_path: Path | None
    source_path: Path | None
    panels: Panels = ALONE

    @property
    def has_source(self) -> bool:
        """Whether `read` gives the source."""
        return self.source_path is not None or self.panels.source is not None


@dataclass(frozen=True)
class Matched:
    """The rows in the order of the pair list, or of the generated files' names where there is none; all pictures are
    height x width. notes: what was left aside, a line each."""

    rows: tuple[Row, ...]
    height: int
    width: int
    notes: tuple[str, ...]


def match(generated: Path, target: Path | None, source: Path | None, pairs: Path | None) -> Matched:
    """Finds for each generated image its target and its source, in folders and all that lies below them (links to other
    folders are not followed).

    Args:
        generated: folder of the images to score, or of files that hold source, target and generated image.
        target: folder of true images; None where the generated files hold them. It goes before a panel.
        source: likewise. Where a file names its target alone, its source is another picture of that name in here: PG2
            names all three alike, x/00012.png, x_target/00012.png and G/00012.png.
        pairs: a from,to list (data/annotations.py). Exactly its pairs are wanted then.

    Raises:
        UserError: no such folder, no image, a name that cannot be read or means two things, a target, a source or a
            pair that is missing, an image too many, two images of a pair, a picture that is not 8-bit RGB or has
            another size than the others. It names the first few files and says how many there are.
    """
    made = Folder(generated, "--generated")
    targets = Folder(target, "--target") if target else None
    sources = Folder(source, "--source") if source else None
    keys = {key(name) for name in made.names}
    names = [name for name in made.names if not is_copy(name, keys)]
    found = by_list(made.root, names, pairs) if pairs else by_name(made.root, names, targets, sources)
    _refuse_absent(targets, [reading.target for _, reading in found])
    _refuse_absent(sources, [reading.source for _, reading in found if reading.source])
    rows = [_row(made.root, name, reading, targets, sources) for name, reading in found]
    rows, height, width = _settled(rows, [reading.form.panels for _, reading in found])
    notes = []
    if copies := len(made.names) - len(names):
        notes.append(f"{copies:,} files in {generated} are copies of inputs beside a _vis: not scored")
    if targets and (unused := len(targets.names) - len({row.target_path for row in rows})):
        notes.append(f"{unused:,} of {len(targets.names):,} images in {target} are the target of no generated image")
    if sources and (silent := [row.key for row in rows if not row.source]):
        notes.append(f"{few(silent)} name no source: give --pairs CSV where scores need it")
    return Matched(tuple(rows), height, width, tuple(notes))


def read(row: Row) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Generated image, target and source, (H, W, 3) uint8 each; None for a source that is nowhere (row.has_source).

    Raises:
        UserError: the pixels of a file cannot be decoded, or it was changed since `match`.
    """
    whole = _pixels(row.generated_path)
    width = whole.shape[1] // row.panels.count

    def picture(path: Path | None, place: int | None) -> np.ndarray | None:
        if path is not None:
            return _pixels(path)
        return None if place is None else np.ascontiguousarray(whole[:, place * width : (place + 1) * width])

    generated = picture(None, row.panels.generated)
    target = picture(row.target_path, row.panels.target)
    assert generated is not None and target is not None, f"{row.key}: match() gives no row without a target"
    return generated, target, picture(row.source_path, row.panels.source)


def keypoints(path: Path, names: Iterable[str], height: int, width: int) -> np.ndarray:
    """(N, 18, 2) float32 of the images with these names, (x, y) in pixels, a missing joint (-1, -1).

    path: the field's keypoint file, of height x width images, or a folder of shards that have these images.

    Raises:
        UserError: a broken file or folder, a name that it does not have, keypoints outside the image.
    """
    names = list(names)
    if path.is_dir():
        known = _of_shards(path, height, width)
        _refuse_unknown(path, known, names)
    else:  # the names first: with those of other pictures the pixels are of these too
        rows = annotations.numbered(path)
        known = {key(row.name): np.array(row.keypoints, np.float32) for _, row in rows}
        _refuse_unknown(path, known, names)
        annotations.check_inside(path, rows, height, width)
    return np.array([known[key(name)] for name in names], np.float32).reshape(-1, 18, 2)


def _of_shards(root: Path, height: int, width: int) -> dict[str, np.ndarray]:
    """Keypoints of the images of all splits, by the keys of their names."""
    known: dict[str, np.ndarray] = {}
    for split in read_manifest(root)["splits"]:
        shards = ShardSet(root, split)
        if (shards.height, shards.width) != (height, width):
            raise UserError(
                f"--annotations {root}: its images are {shards.height}x{shards.width} (height x width), those to score "
                f"{height}x{width}; give the shards that these come from"
            )
        known |= {key(name): points for name, points in zip(shards.names, shards.keypoints, strict=True)}
    return known


def _refuse_unknown(path: Path, known: dict[str, np.ndarray], names: list[str]) -> None:
    if absent := once(name for name in names if key(name) not in known):
        raise UserError(
            f"{path} has no line for {few(absent)}, but for {few(list(known)) or 'none'}; give the keypoint file of "
            "these images, or the folder of the shards that they come from (in shards of your own pictures names and "
            "pixels are others than your files': sources.csv there says which is which)"
        )


def _row(root: Path, name: str, reading: Reading, targets: Folder | None, sources: Folder | None) -> Row:
    """The row of a file, its panels still to be settled by its size."""
    target, target_path = reading.target, None
    if targets:
        file = targets.file(target)
        target, target_path = targets.name(file), targets.root / file
    source, source_path = reading.source, None
    if sources and (source or reading.target in sources):
        file = sources.file(source or reading.target)
        source, source_path = sources.name(file), sources.root / file
        if not reading.source and (not target_path or filecmp.cmp(source_path, target_path, shallow=False)):
            source, source_path = "", None  # a folder of all images, where the target's name means the target
    return Row(name, source, target, person(target), root / name, target_path, source_path)


def _refuse_absent(folder: Folder | None, wanted: list[str]) -> None:
    if folder and (absent := once(name for name in wanted if name not in folder)):
        raise UserError(f"{folder.option} {folder.root} has no {few(absent)}; copy them there")


def _settled(rows: list[Row], ways: list[tuple[Panels, ...]]) -> tuple[list[Row], int, int]:
    """The rows with their panels, and the height and width of all pictures: those of most targets.

    ways: how the file of each row may be laid out.

    Raises:
        UserError: pictures of another kind or size.
    """
    sizes = _sizes({path for row in rows for path in (row.generated_path, row.target_path, row.source_path) if path})
    ways = [
        tuple(panels for panels in way if row.target_path or panels.target is not None)
        for row, way in zip(rows, ways, strict=True)
    ]
    found = Counter(size for row, way in zip(rows, ways, strict=True) if (size := _target_size(row, way, sizes)))
    if not found:
        raise UserError(f"{few([row.key for row in rows])} show no target beside what was generated; give --target DIR")
    (height, width), _ = found.most_common(1)[0]
    settled, wrong = [], []
    for row, way in zip(rows, ways, strict=True):
        size = sizes[row.generated_path]
        fitting = [panels for panels in way if size == (height, panels.count * width)]
        settled += [replace(row, panels=panels) for panels in fitting[:1]]
        if not fitting:
            wrong.append(_of_size(row.generated_path, size, [(height, panels.count * width) for panels in way]))
        for path in (row.target_path, row.source_path):
            if path and sizes[path] != (height, width):
                wrong.append(_of_size(path, sizes[path], [(height, width)]))
    if wrong:
        raise UserError(f"{few(once(wrong))}, height x width; nothing is resized here: scale or cut them yourself")
    return settled, height, width


def _of_size(path: Path, size: tuple[int, int], expected: list[tuple[int, int]]) -> str:
    other = " or ".join(f"{height}x{width}" for height, width in expected) or "a target beside it, or --target DIR"
    return f"{path} is {size[0]}x{size[1]} (expected {other})"


def _target_size(row: Row, way: tuple[Panels, ...], sizes: dict[Path, tuple[int, int]]) -> tuple[int, int] | None:
    """Height and width of a row's target, or None where it is not there. A file has panels if it is wider than high,
    which no image of a person is."""
    if row.target_path:
        return sizes[row.target_path]
    height, width = sizes[row.generated_path]
    widths = [width // panels.count for panels in way if width > height and width % panels.count == 0]
    return (height, widths[0]) if widths else None


def _sizes(paths: set[Path]) -> dict[Path, tuple[int, int]]:
    """(height, width) of each file.

    Raises:
        UserError: some are no 8-bit RGB pictures.
    """

    def look(path: Path) -> tuple[int, int] | str:
        try:
            return plain_rgb.size(path)
        except ValueError as error:
            return f"{path} {error}"

    with ThreadPoolExecutor(READERS) as pool:
        found = dict(zip(sorted(paths), pool.map(look, sorted(paths)), strict=True))
    if wrong := [size for size in found.values() if isinstance(size, str)]:
        raise UserError(f"{few(wrong)}; {RGB}")
    return {path: size for path, size in found.items() if not isinstance(size, str)}


def _pixels(path: Path) -> np.ndarray:
    try:
        return plain_rgb.pixels(path)
    except ValueError as error:
        raise UserError(f"{path} {error}; {RGB}") from error
