"""Makes pictures with a trained run: `python -m mscgan.generate --run RUN ...`

    --image me.jpg --pose-of other.jpg ...    me.jpg's person in the pose of other.jpg's, which an estimator finds
                                              (mscgan/estimators.py); several photographs, or folders of them
    --image me.jpg --keypoints b.json ...     in the pose of a file, or in every pose of it (mscgan/pose_formats.py)
        [--out FILE.png | FOLDER]             a picture a pose in the folder; FILE.png has all poses side by side
        [--crop auto | --box LEFT,TOP,RIGHT,BOTTOM]    of me.jpg the part around the person, or this part
    --pairs 8 [--split test] [--data DIR] [--out ...]    source | target pose | stage by stage | target, for pairs
                                              spread evenly over the split's pair table

Of several files those that show nobody are left out, and said. Prints the paths of the PNGs. Beside each result, in a
folder "shown", lies a picture source | pose | result, so that a wrong pose is seen. Runs on the CUDA device where there
is one.
"""

import argparse
import math
import sys
from pathlib import Path

import torch

from mscgan import trained
from mscgan.arguments import Parser
from mscgan.checks import check_apart, check_makes_images, check_place, check_together
from mscgan.data.read import choose_pairs, open_shards
from mscgan.errors import UserError, run
from mscgan.estimators import ESTIMATORS, open_estimator
from mscgan.framing import Box
from mscgan.keys import Data
from mscgan.paths import a_path, path_text
from mscgan.pictures import save_png
from mscgan.results import all_of, places, write
from mscgan.user_inputs import (
    POSE_ENDINGS,
    Nobody,
    Target,
    TooFew,
    named,
    photo_pose,
    pictures_in,
    pose_files_in,
    read_image,
    read_poses,
)


def main() -> None:
    options = _arguments()
    torch.backends.cudnn.deterministic = True  # the same command, the same picture
    # What can be refused is refused before the networks are built.
    config = trained.read_config(options.run)
    if options.pairs is not None:
        _pairs(options, config.data)
    else:
        check_makes_images(options.run, config)
        _poses(options, config.data)


def _arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m mscgan.generate", description="Makes pictures with a trained run.")
    parser.add_argument("--run", type=a_path, required=True, help="the run's folder")
    parser.add_argument("--image", type=a_path, help="a photograph of a person")
    parser.add_argument(
        "--pose-of",
        nargs="+",
        default=[],
        type=a_path,
        metavar="PHOTO",
        help="whose pose to take: photographs or folders",
    )
    parser.add_argument(
        "--keypoints",
        nargs="+",
        default=[],
        type=_a_pose,
        metavar="POSE",
        help="poses to take: files, folders of them, or a text",
    )
    parser.add_argument("--person", type=int, help="of several people the N-th largest; the largest by default")
    parser.add_argument("--name", default="", help="of a file of many images (a CSV, COCO's) the one to take")
    parser.add_argument("--any-pose", action="store_true", help="take a file's pose even if it looks wrong")
    parser.add_argument(
        "--estimator",
        type=path_text,
        help=f"finds poses: {' | '.join(ESTIMATORS)} | the path of PAF weights; {ESTIMATORS[0]} by default",
    )
    crop = parser.add_mutually_exclusive_group()
    crop.add_argument("--crop", choices=("auto",), help="cut the image to the person, as the data sets' images are")
    crop.add_argument("--box", type=_box, metavar="LEFT,TOP,RIGHT,BOTTOM", help="cut the image to this, in its pixels")
    parser.add_argument("--pairs", type=int, help="make a grid of so many pairs of the shards instead")
    parser.add_argument("--split", help="of which split the pairs are; test by default")
    parser.add_argument("--data", type=path_text, help="shards to use instead of the run's data.root")
    parser.add_argument("--out", type=a_path, help="the PNG or the folder to write; in the run's folder by default")
    words = sys.argv[1:]
    if "--box" in words[:-1]:  # argparse takes a value that begins with a minus for an option
        at = words.index("--box")
        words[at : at + 2] = [f"--box={words[at + 1]}"]
    options = parser.parse_args(words)
    poses = [*options.pose_of, *options.keypoints]
    if (options.pairs is None) == (options.image is None) or (options.image is None) != (not poses):
        raise UserError("give --image with --pose-of or --keypoints, or --pairs alone")
    photos = not all(map(_is_pose, options.pose_of))
    files = options.keypoints or any(map(_is_pose, options.pose_of))
    check_together(
        options,
        {
            "--pairs": (options.pairs is not None, ("split", "data")),
            "--image": (options.image is not None, ("person", "crop", "box")),
            "--keypoints, or a file of poses": (files, ("name", "any_pose")),
            "--pose-of PHOTO or --crop auto": (photos or options.crop, ("estimator",)),
        },
    )
    if options.person is not None and options.person < 1:
        raise UserError(f"--person {options.person}: the largest person is 1, the next 2 and so on; give one of them")
    return options


def _a_pose(text: str) -> str:
    """A path, or the text of a pose as it came."""
    return text if text.lstrip()[:1] in ("[", "{") else path_text(text)


def _box(text: str) -> Box:
    sides = text.split(",")
    try:
        left, top, right, bottom = (float(side) for side in sides)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}; expected LEFT,TOP,RIGHT,BOTTOM, as 100,50,400,650") from error
    if not all(1 <= side < math.inf for side in (right - left, bottom - top)):
        raise argparse.ArgumentTypeError(f"{text!r}; LEFT must be a pixel or more below RIGHT, TOP below BOTTOM")
    return left, top, right, bottom


def _pairs(options: argparse.Namespace, data: Data) -> None:
    split = options.split or "test"
    out = options.out or options.run / f"pairs-{split}.png"
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: pictures are written as PNG; give a name that ends with .png")
    check_place(out, "--out")
    shards = open_shards(data, split, options.data or "")
    choose_pairs(shards, options.pairs)
    picture = trained.sample_grid(trained.load(options.run), shards, options.pairs)
    try:
        save_png(picture, out)
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror}); give another file with --out") from error
    print(out)


def _poses(options: argparse.Namespace, data: Data) -> None:
    photos = [photo for path in options.pose_of if not _is_pose(path) for photo in pictures_in(path)]
    poses = [*(str(path) for path in options.pose_of if _is_pose(path)), *options.keypoints]
    given = [file for pose in poses for file in pose_files_in(pose)]
    estimate = open_estimator(options.estimator or ESTIMATORS[0]) if photos or options.crop else None
    x, note = read_image(
        options.image, data.height, data.width, options.box, estimate if options.crop == "auto" else None
    )
    targets: list[Target] = []
    left_out: list[Nobody] = []  # as a film has pictures without anybody
    fewer: list[str] = []  # another person in their place would be a wrong result
    sources: list[Path | str] = [*photos, *given]
    for source in sources:
        try:
            if isinstance(source, Path):
                assert estimate is not None, "photographs have their estimator"
                targets.append(photo_pose(source, estimate, data.height, data.width, options.person))
            else:
                targets += read_poses(
                    source, data.height, data.width, options.person, options.name or "", options.any_pose
                )
        except Nobody as error:
            left_out.append(error)
        except TooFew as error:
            fewer += error.shown
    if fewer:
        raise TooFew(options.person, fewer)
    if not targets:
        raise left_out[0]
    targets = named(targets)
    out = places(options.run, options.image.stem, options.out, targets)
    for path in all_of(out):
        check_apart(path, "--out", [options.image, *sources])
    _say([note, *(target.note for target in targets)])
    _say([f"left out: {error}" for error in left_out])
    model = trained.load(options.run)
    for path in write(model, x, targets, out):
        print(path)


def _is_pose(path: Path) -> bool:
    return path.suffix.lower() in POSE_ENDINGS


def _say(notes: list[str]) -> None:
    """The first few and the last, which is of its whole file."""
    notes = [note for note in notes if note]
    if len(notes) > 8:
        notes = [*notes[:6], f"... and {len(notes) - 7:,} more", notes[-1]]
    for note in notes:
        print(note, file=sys.stderr)


if __name__ == "__main__":
    run(main)
