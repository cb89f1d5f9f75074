"""Pictures of what runs make: samples of the split (figures 1 and 4), and the pairs with the best and the worst SSIM A
(figure 5). They are made again, from each run's weights and shards."""

import base64
import csv
import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mscgan import files, trained
from mscgan.data.read import choose_pairs, open_shards
from mscgan.data.shards import ShardSet
from mscgan.errors import UserError
from mscgan.report.reading import Run
from mscgan.report.scores import Evaluation
from mscgan.trained import Trained

SAMPLES = 6  # pairs
EXTREMES = 3  # pairs of the best and of the worst
BY = "ssim_A"
PAIRS = "evaluation-pairs.csv"
LARGEST = 256 << 20  # bytes of it
LOSSLESS = 32 << 10  # bytes that a picture may have as PNG; a larger one is a JPEG, a fifth of that


@dataclass(frozen=True)
class Picture:
    source: str  # a data: URI
    description: str
    width: int
    height: int


@dataclass(frozen=True)
class Grid:
    caption: str
    columns: list[str]
    rows: list[tuple[str, list[Picture]]]  # what a row is, and a picture a column


@dataclass(frozen=True)
class Section:
    """Grids, and a picture that training made where they cannot be made again; each `note` says what is missing."""

    grids: list[Grid]
    saved: list[Picture]
    notes: list[str]


def pictures(runs: list[Run]) -> tuple[Section, list[Section]]:
    """The samples of all runs, and of each run its best and worst pairs. One run's networks are in memory at a time."""
    groups: dict[tuple[str, str], list[tuple[Run, dict[str, np.ndarray], list[str]]]] = {}
    saved, notes, extremes = [], [], []
    for run in runs:
        try:
            model, shards = _open(run)
            sources, targets = shards.pairs[choose_pairs(shards, min(SAMPLES, len(shards.pairs)))].T
            columns = trained.columns(model, shards, sources, targets)
        except (UserError, OSError) as error:
            extremes.append(Section([], [], [f"{run.name}: {error}"]))
            instead, said = _saved(run)
            saved += instead
            notes.append(f"{run.name}: no samples could be made: {error}. {said}")
            continue
        caption = f"people of the {shards.split} split of {shards.dataset}"
        groups.setdefault((shards.fingerprint, caption), []).append((run, columns, _names(shards, sources, targets)))
        extremes.append(_extremes(run, model, shards))
    grids = [_side_by_side(caption, group) for (_, caption), group in groups.items()]
    return Section(grids, saved, notes), extremes


def _open(run: Run) -> tuple[Trained, ShardSet]:
    if not run.generator_sha256:
        raise UserError(f"{run.folder / 'generator.safetensors'} is not there yet; training writes it when it saves")
    shards = open_shards(run.config.data, run.evaluation.split if run.evaluation else "test", run.shards)
    if run.evaluation and shards.fingerprint != run.evaluation.shards_fingerprint:
        raise UserError(
            f"{shards.root} holds other shards than those that were scored; score again: {run.score_command}"
        )
    return trained.load(run.folder), shards


def _names(shards: ShardSet, sources: np.ndarray, targets: np.ndarray) -> list[str]:
    return [f"from {shards.names[source]} to {shards.names[target]}" for source, target in zip(sources, targets)]


def _side_by_side(caption: str, group: list[tuple[Run, dict[str, np.ndarray], list[str]]]) -> Grid:
    """source, target pose, what each run makes, target, of the same pairs."""
    together: dict[str, np.ndarray] = {}
    for run, columns, _ in group:
        common = ("source", "target pose", "target")
        together |= {
            title if len(group) == 1 or title in common else f"{run.name}: {title}": images
            for title, images in columns.items()
        }
    together["target"] = together.pop("target")  # the last
    names = group[0][2]
    return _grid(caption, together, [str(row + 1) for row in range(len(names))], names)


def _grid(caption: str, columns: dict[str, np.ndarray], heads: list[str], names: list[str]) -> Grid:
    """heads, names: of each row, what stands before it, and of which pair it is."""
    height, width = columns["source"].shape[1:3]
    rows = [
        (head, [Picture(_uri(images[row]), f"{title}, {name}", width, height) for title, images in columns.items()])
        for row, (head, name) in enumerate(zip(heads, names, strict=True))
    ]
    return Grid(caption, list(columns), rows)


def _extremes(run: Run, model: Trained, shards: ShardSet) -> Section:
    """The pairs that the run's answer does best and worst on."""
    if run.evaluation is None:
        return Section([], [], [f"{run.name} has not been scored; {run.score_command} writes {PAIRS} too"])
    grids = []
    try:
        scored = _read_pairs(run, run.evaluation)
        count = min(EXTREMES, len(scored) // 2) or 1
        for title, some in (("best", scored[-count:][::-1]), ("worst", scored[:count])):
            sources = _numbers(shards, [source for _, source, _ in some])
            targets = _numbers(shards, [target for *_, target in some])
            columns = trained.columns(model, shards, sources, targets)
            heads = [f"{value:.3f}" for value, *_ in some]
            grids.append(_grid(f"{run.name}: the {title} pairs", columns, heads, _names(shards, sources, targets)))
    except (UserError, OSError, ValueError) as error:
        return Section([], [], [f"{run.name}: {error}"])
    return Section(grids, [], [])


def _read_pairs(run: Run, evaluation: Evaluation) -> list[tuple[float, str, str]]:
    """(score, source, target) of the pairs of the run's answer, the worst first; those without a score are left out.

    Raises:
        UserError: there is no such file, or it is another than evaluation.json's.
        OSError: it cannot be read.
    """
    path, method = run.folder / PAIRS, evaluation.answer
    if not path.exists():
        raise UserError(f"{path} is not there; {run.score_command} writes it")
    rows = csv.DictReader(io.StringIO(files.read(path, LARGEST).decode(errors="replace")))
    try:
        found = [(float(row[BY] or "nan"), row["source"], row["target"]) for row in rows if row["method"] == method]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        why = f"{path} has no column of numbers {BY} ({type(error).__name__}: {error})"
        raise UserError(f"{why}; score again: {run.score_command}") from error
    scored = sorted((pair for pair in found if math.isfinite(pair[0])), key=lambda pair: pair[0])
    if len(found) != evaluation.pairs or not scored:
        raise UserError(
            f"{path} has {len(found)} pairs of {method}, {len(scored)} of them with {BY}, and evaluation.json has "
            f"{evaluation.pairs}; score again: {run.score_command}"
        )
    return scored


def _numbers(shards: ShardSet, names: list[str]) -> np.ndarray:
    """The numbers of the images with these names. Raises UserError: there is no such image."""
    number = {name: i for i, name in enumerate(shards.names)}
    if missing := [name for name in names if name not in number]:
        raise UserError(f"{PAIRS} names an image {missing[0]!r} that {shards.root} has not; score again")
    return np.array([number[name] for name in names])


def _saved(run: Run) -> tuple[list[Picture], str]:
    """The newest grid that training drew, and what to say of it."""
    there = sorted((run.folder / "samples").glob("pairs-*.png"))
    if not there:
        return [], "Training has drawn none yet either."
    try:
        with Image.open(there[-1]) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        return [], f"{there[-1]} cannot be read either ({error})."
    height, width = pixels.shape[:2]
    drawn = f"{run.name}: the samples that training drew, {there[-1].name}"
    return [Picture(_uri(pixels), drawn, width, height)], f"Shown is what training drew last, {there[-1].name}."


def _uri(pixels: np.ndarray) -> str:
    """(H, W, 3) uint8 as a data: URI."""
    kind, data = "png", _encoded(pixels, "PNG")
    if len(data) > LOSSLESS:
        kind, data = "jpeg", _encoded(pixels, "JPEG", quality=88, subsampling=0)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _encoded(pixels: np.ndarray, kind: str, **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, optimize=True, **options)
    return out.getvalue()
