"""Scores a trained run: `python -m mscgan.evaluate --run RUN [--split test] [--pairs N] [--scores ssim_A,fid] [--keep]`

    python -m mscgan.evaluate folder --generated DIR --target DIR …    anybody's images (mscgan/evaluate_folder.py)
    python -m mscgan.evaluate compare RUN RUN                          two evaluations of the same pairs (compare.py)

For each image that the family shows (stage I, stage II), and beside it a copy of the source, the mean image of the
train split and, for scores of sets and of poses, the target images themselves: the scores of mscgan/scoring.py, over
all pairs of the split or N spread evenly over them, of the 8-bit images that `generate` writes. Prints a table, writes
RUN/evaluation.json, and the scores of every pair to RUN/evaluation-pairs.csv. What is less or other than all scores of
all test pairs of the run's own shards gets a name that says so, as evaluation-train-3-pairs.json, and so never replaces
it.

Several processes share the work (launch/submit.py --job evaluate --nodes 2, torchrun), with the same numbers. A killed
evaluation goes on where it was: until it ends, its numbers lie beside the file that it will write.
"""

import argparse
import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mscgan import compare, dist, evaluate_folder, evaluation, trained
from mscgan.arguments import Parser
from mscgan.checks import check_apart, check_makes_images, check_place
from mscgan.data.read import choose_pairs, open_shards
from mscgan.data.shards import ShardSet
from mscgan.errors import UserError, run
from mscgan.estimators import ESTIMATORS
from mscgan.paths import a_path, path_text
from mscgan.scored import RunImages, audit
from mscgan.step import take_ranks


@dataclass(frozen=True)
class Chosen:
    """What of a run is scored.

    pairs: how many, spread evenly over the split's table; None for all.
    root: shards to use instead of the run's data.root; "" for those.
    scores: names of mscgan/scoring.py; empty for all.
    keep: write the made images to generated/ beside evaluation.json (generated-train/ beside evaluation-train.json),
        METHOD/SOURCE_TARGET.png.
    estimator: finds the poses that pckh and pck_torso compare (mscgan/estimators.py).
    """

    split: str = "test"
    pairs: int | None = None
    root: str = ""
    scores: tuple[str, ...] = ()
    keep: bool = False
    estimator: str = ESTIMATORS[0]


def evaluate(run: Path, chosen: Chosen, out: Path | None = None, ranks: dist.Ranks | None = None) -> dict | None:
    """Scores a run; says and writes it as evaluation.evaluate.

    Args:
        out: the file; None: one in the run's folder.

    Returns:
        The document, on rank 0; None on the others.

    Raises:
        UserError: what trained.load, open_shards, choose_pairs and evaluation.evaluate raise; an unknown score.
    """
    config = trained.read_config(run)
    check_makes_images(run, config)
    data = config.data
    shards = open_shards(data, chosen.split, chosen.root)
    rows = choose_pairs(shards, len(shards.pairs) if chosen.pairs is None else chosen.pairs)
    scores = evaluation.choose(chosen.scores)
    out = out or run / file_name(shards, len(rows), data.root, scores if chosen.scores else [], chosen.estimator)
    check_place(out, "--out")
    check_apart(out, "--out", [run / "config.yaml", run / "generator.safetensors"])
    weights = _sha256(run / "generator.safetensors")
    model = trained.load(run)
    if any(digest != weights for digest in [_sha256(run / "generator.safetensors"), *_of_ranks(weights, ranks)]):
        raise UserError(f"{run} is being trained: its weights were saved anew meanwhile; score it again")
    kept = str(_kept_beside(out).absolute()) if chosen.keep else ""
    about = {
        "split": chosen.split,
        "dataset": shards.dataset,
        "family": model.config.family,
        "variant": model.config.variant,
        "pairs": len(rows),
        "pairs_in_split": len(shards.pairs),
        "pairs_chosen": "all" if len(rows) == len(shards.pairs) else "spread evenly over the split's table",
        "shards": str(shards.root.absolute()),
        "shards_fingerprint": shards.fingerprint,
        "config_sha256": _sha256(run / "config.yaml"),
        "generator_sha256": weights,
        "kept": kept,
        "audit": _audit(shards, rows),
    }
    scored = RunImages(model, shards, rows, _kept_beside(out) if chosen.keep else None)
    return evaluation.evaluate(scored, scores, about, out, chosen.estimator, ranks)


def _of_ranks(digest: str, ranks: dist.Ranks | None) -> list[str]:
    return dist.gather(digest) if ranks else []


def _kept_beside(out: Path) -> Path:
    """generated/ for evaluation.json, generated-train/ for evaluation-train.json."""
    stem = out.stem
    return out.with_name(
        "generated" + stem.removeprefix("evaluation") if stem.startswith("evaluation") else f"{stem}-generated"
    )


def _audit(shards: ShardSet, rows: np.ndarray) -> dict:
    """What the list of pairs should be known for: joints that are missing, and what train has in common with it.

    "images": of the pairs. "shared": as shards/audit.py counted it when the shards were built.
    """
    sources, targets = shards.pairs[rows].T
    return {
        "images": len(np.unique(shards.pairs[rows])),
        **audit(shards.keypoints[sources], shards.keypoints[targets]),
        "shared": shards.shared.get(f"{shards.split} in train", {}),
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_name(
    shards: ShardSet, pairs: int, run_root: str, scores: Sequence[str] = (), estimator: str = Chosen.estimator
) -> str:
    """evaluation.json for all scores of all test pairs of the shards at `run_root`, the run's own; else with what
    differs in it."""
    parts = [shards.split] if shards.split != "test" else []
    if os.path.realpath(shards.root) != os.path.realpath(run_root):
        parts.append(shards.root.name)
    if pairs < len(shards.pairs):
        parts.append(f"{pairs}-pairs")
    if scores:
        parts.append("+".join(scores))
    parts += evaluation.by_estimator(scores, estimator)
    return "-".join(["evaluation", *parts]) + ".json"


def main() -> None:
    if sys.argv[1:2] == ["folder"]:
        return evaluate_folder.main(sys.argv[2:])
    if sys.argv[1:2] == ["compare"]:
        return compare.main(sys.argv[2:])
    parser = Parser(
        prog="python -m mscgan.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=a_path, required=True, help="the run's folder")
    parser.add_argument("--split", default="test", help="of the shards")
    parser.add_argument("--pairs", type=int, help="score so many pairs, spread evenly over the split; all by default")
    parser.add_argument("--data", type=path_text, help="shards to use instead of the run's data.root")
    parser.add_argument("--scores", default="", metavar="A,B", help="which (mscgan/scoring.py); all by default")
    parser.add_argument(
        "--estimator",
        type=path_text,
        metavar="NAME",
        help="finds the poses of pckh and pck_torso: movenet, paf, or a run of paf's; movenet by default",
    )
    parser.add_argument("--keep", action="store_true", help="write what is made to generated/ beside the file")
    parser.add_argument("--out", type=a_path, help="the JSON file to write; one in the run's folder by default")
    options = parser.parse_args()
    scores = tuple(filter(None, options.scores.split(",")))
    estimator = evaluation.estimator_of(scores, options.estimator)
    chosen = Chosen(options.split, options.pairs, options.data or "", scores, options.keep, estimator)
    take_ranks()
    ranks = dist.init() if os.environ.get("WORLD_SIZE", "1") != "1" else None
    torch.backends.cudnn.deterministic = True  # or transposed convolutions may differ from run to run
    if ranks:
        dist.take_cores(ranks)
    evaluate(options.run, chosen, options.out, ranks)
    if ranks:
        dist.shutdown()


if __name__ == "__main__":
    run(main)
