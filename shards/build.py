"""Makes a folder of shards for training.

    python shards/build.py synthetic  --out DIR [--people N --views V --seed S --height H --width W]
    python shards/build.py market1501  --images DIR --annotations CSV [--test-annotations CSV] --out DIR
    python shards/build.py deepfashion --images DIR --annotations CSV [--test-annotations CSV] --out DIR
    python shards/build.py folder --images DIR --annotations FILE|--estimator NAME --person folder|REGEX|CSV \
        --height H --width W --out DIR [--crop auto] [--test N]                    your own pictures

The test split is for the final scores alone. `--validation N` holds N persons out of train, with all their pairs, as a
third split for what is looked at and chosen while training; it depends on the persons alone. Photographs: those whose
identity has the smallest SHA-256 (the identity without the colour for DeepFashion, so that a garment is never in both;
its other colours come along and N may be exceeded by those). Drawn people: the last ones that are not in test. Your own
pictures: as photographs, behind those of `--test`, which are the first in the same order.
Without it train stays whole, as published.

The same command again goes on after a kill, Ctrl-C (exit code 130) or a mistake that was mended, be it a picture that
was replaced or removed. `python shards/verify.py DIR` checks the result.
The last lines, kept as `audit` in manifest.json, say what splits share, which joints are missing and which images are
there twice (by the bytes of the JPEG).
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports below needs no traceback
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mscgan.arguments import Parser
from mscgan.checks import check_together
from mscgan.errors import UserError, run
from mscgan.paths import a_path, path_text
from shards import folder, photographs, synthetic
from shards.audit import lines
from shards.own_frame import CROPS
from shards.pairs import DATASETS, check_draw
from shards.parallel import stoppable
from shards.synthetic_body import POSES
from shards.write import Plan, write


def main() -> None:
    a = _parser().parse_args()
    if a.workers < 1:
        raise UserError(f"--workers {a.workers}: give 1 or more processes")
    if a.command == "synthetic":
        check_draw(None, a.seed)
        plan = synthetic.plan(a.people, a.views, a.seed, a.height, a.width, a.test_pairs, a.validation, a.poses, a.turn)
    elif a.command == folder.NAME:
        plan = _folder(a)
    else:
        plan = _photographs(a)
    started = time.monotonic()
    if plan is None or not write(plan, a.out, a.workers):
        print(f"{a.out} is already built; nothing to do")
        return
    print("\n".join(lines(json.loads((a.out / "manifest.json").read_text())["audit"])))
    images = sum(len(split.images) for split in plan.splits.values())
    pairs = ", ".join(f"{len(split.pairs):,} {name} pairs" for name, split in plan.splits.items())
    print(f"{a.out}: {images:,} images of {plan.height}x{plan.width}, {pairs}, {time.monotonic() - started:.0f} s")


def _photographs(a: argparse.Namespace) -> Plan:
    annotations = {"train": a.annotations, "test": a.test_annotations}
    annotations = {split: path for split, path in annotations.items() if path is not None}
    if not annotations:
        raise UserError("no keypoint file: give --annotations CSV, --test-annotations CSV or both")
    check_together(a, {"--sample": (a.sample is not None, ("seed",))})
    seed = a.seed or 0
    check_draw(a.sample, seed)
    plan, report = photographs.plan(DATASETS[a.command], a.images, annotations, a.pairs, a.sample, seed, a.validation)
    print("\n".join(report), flush=True)
    return plan


def _folder(a: argparse.Namespace) -> Plan | None:
    check_together(a, {"--annotations": (a.annotations, ("any_pose",))})
    asked = folder.Asked(
        a.images,
        a.person,
        a.height,
        a.width,
        a.annotations,
        a.estimator or "",
        a.crop,
        a.test,
        a.validation,
        a.any_pose,
    )
    plan, report = folder.plan(asked, a.out, a.workers)
    print("\n".join(report), end="\n" if report else "", flush=True)
    return plan


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    common = Parser(add_help=False)
    common.add_argument("--out", type=a_path, required=True, metavar="DIR", help="the folder to make")
    common.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes (as many as cores)"
    )
    common.add_argument(
        "--validation",
        type=int,
        default=0,
        metavar="N",
        help="persons to hold out of train as a split of their own (0)",
    )

    drawn = commands.add_parser("synthetic", parents=[common], help="drawn people, any number and size")
    drawn.add_argument("--people", type=int, default=200, help="a fifth of them are the test split (200)")
    drawn.add_argument("--poses", choices=POSES, default="all", help="everyday: standing and walking alone (all)")
    drawn.add_argument(
        "--turn", type=float, default=360, help="degrees over which views spread, around the front (360)"
    )
    drawn.add_argument("--views", type=int, default=10, help="pictures of a person (10)")
    drawn.add_argument("--seed", type=int, default=0)
    drawn.add_argument("--height", type=int, default=128, help="pixels (128)")
    drawn.add_argument("--width", type=int, default=64, help="pixels (64)")
    drawn.add_argument("--test-pairs", type=int, default=1000, help="pairs of the test split, at most (1000)")

    for dataset in DATASETS:
        taken = commands.add_parser(dataset, parents=[common], help="photographs with the public keypoint files")
        taken.add_argument("--images", type=a_path, required=True, metavar="DIR", help="where the pictures lie")
        taken.add_argument("--annotations", type=a_path, metavar="CSV", help="keypoints of the train split")
        taken.add_argument("--test-annotations", type=a_path, metavar="CSV", help="keypoints of the test split")
        taken.add_argument(
            "--pairs",
            type=a_path,
            nargs="+",
            default=[],
            metavar="FILE",
            help="from,to lists, one a split at most, instead of all ordered pairs of a person",
        )
        taken.add_argument(
            "--sample", type=int, metavar="N", help="draw N of the test pairs (of the train pairs, if it is alone)"
        )
        taken.add_argument("--seed", type=int, help="of the draw (0: as the public lists)")

    own = commands.add_parser(folder.NAME, parents=[common], help="your own pictures, of any names, formats and sizes")
    own.add_argument("--images", type=a_path, required=True, metavar="DIR", help="where they lie, in it or below")
    own.add_argument(
        "--annotations",
        type=a_path,
        metavar="FILE",
        help="their keypoints in pixels of each: a keypoint file, COCO's, or a folder of OpenPose's",
    )
    own.add_argument("--any-pose", action="store_true", help="take the file's poses even if they look wrong")
    own.add_argument(
        "--estimator", type=path_text, metavar="NAME", help="finds them: movenet, paf, or the path of weights"
    )
    own.add_argument(
        "--person",
        required=True,
        metavar="RULE",
        help="whom a picture shows: 'folder', that it lies in; a regular expression, whose first group in the path it "
        "is; or a CSV file name,person",
    )
    own.add_argument("--height", type=int, required=True, help="pixels of the frame")
    own.add_argument("--width", type=int, required=True, help="pixels of the frame")
    own.add_argument(
        "--crop", choices=CROPS, default="whole", help="auto: the person, with the data sets' margins (whole)"
    )
    own.add_argument("--test", type=float, default=0.2, metavar="N", help="persons of the test split, or a share (0.2)")
    return parser


if __name__ == "__main__":
    run(lambda: stoppable(main, "the same command goes on from the last finished tar"))
