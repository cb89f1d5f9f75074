"""What `generate` writes: a picture a pose, and a picture that shows source, pose and result beside each other.

A result never takes the place of another: a name that is taken gets a number, unless the user named the file.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from mscgan.checks import check_place
from mscgan.errors import UserError
from mscgan.pictures import draw_pose, enlargement, grid, save_png, to_uint8
from mscgan.trained import BATCH, Trained
from mscgan.user_inputs import Target, plain

MOST_BESIDE = 50  # poses in one picture: more is wider than programs open
SHOWN = "shown"  # the folder of pictures source | pose | result, beside the results


class Places(NamedTuple):
    """Where results go: files, one a target, or all of them side by side in one file."""

    files: list[Path]
    together: Path | None


def places(run: Path, image: str, out: Path | None, targets: list[Target]) -> Places:
    """image: the source's name, without folder and ending. out: a PNG, a folder, or None for the run's folder.

    Raises:
        UserError: nothing can be written there, or too many poses for one picture.
    """
    if out is not None and out.suffix.lower() == ".png":
        check_place(out, "--out")
        if len(targets) == 1:
            check_place(out.parent / SHOWN / out.name, "--out")
            return Places([out], None)
        if len(targets) > MOST_BESIDE:
            raise UserError(
                f"{len(targets):,} poses for one picture, where {MOST_BESIDE} are the most; give a folder with --out"
            )
        return Places([], out)
    if out is not None and out.suffix and not out.is_dir():
        raise UserError(f"--out {out}: give a name that ends with .png, or a folder, which has no such ending")
    folder = out or run
    files = [_free(folder, f"{plain(image) or 'image'}-as-{target.name}") for target in targets]  # their names differ
    for file in files:
        check_place(file, "--out")
        check_place(folder / SHOWN / file.name, "--out")
    return Places(files, None)


def all_of(out: Places) -> list[Path]:
    """All that will be written."""
    return [out.together] if out.together else [*out.files, *(file.parent / SHOWN / file.name for file in out.files)]


def write(model: Trained, x: np.ndarray, targets: list[Target], out: Places) -> Iterator[Path]:
    """Makes and writes the pictures; yields each path when it is there.

    x: the source (H, W, 3) uint8, of the model's size.

    Raises:
        UserError: a file cannot be written; those before it stay.
    """
    made: list[np.ndarray] = []
    for start in range(0, len(targets), BATCH):
        batch = targets[start : start + BATCH]
        keypoints = torch.from_numpy(np.stack([target.keypoints for target in batch]))
        *_, answer = model.images(torch.from_numpy(x)[None].repeat(len(batch), 1, 1, 1), keypoints).values()
        results = to_uint8(answer)
        if out.together:
            made += list(results)
            continue
        for target, file, result in zip(batch, out.files[start : start + BATCH], results, strict=True):
            yield _save(Image.fromarray(result), file)
            columns = {"source": x[None], "pose": _posed(target, *x.shape[:2])[None], "result": result[None]}
            yield _save(grid(columns, f"{target.name[:40]}"), file.parent / SHOWN / file.name)
    if out.together:
        yield _save(_side_by_side(x, targets, made), out.together)


def _side_by_side(x: np.ndarray, targets: list[Target], made: list[np.ndarray]) -> Image.Image:
    """The source, and then each pose over its result."""
    columns = {"source": np.stack([np.full_like(x, 255), x])}
    for number, (target, result) in enumerate(zip(targets, made, strict=True), 1):
        pose = _posed(target, *x.shape[:2])
        enlarged = Image.fromarray(result).resize((pose.shape[1], pose.shape[0]), Image.Resampling.BICUBIC)
        columns[f"{number}. {target.name[:20]}"] = np.stack([pose, np.array(enlarged)])
    return grid(columns)


def _posed(target: Target, height: int, width: int) -> np.ndarray:
    """The pose as `grid` shows images of that size, drawn on its photograph or on black."""
    return draw_pose(target.keypoints, height, width, enlargement(height), target.photo)


def _free(folder: Path, name: str) -> Path:
    numbered = (folder / f"{name}{f'-{i}' if i > 1 else ''}.png" for i in itertools.count(1))
    return next(file for file in numbered if not file.exists())


def _save(picture: Image.Image, path: Path) -> Path:
    try:
        save_png(picture, path)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}); give another place with --out") from error
    return path
