"""Scores a trained run: `python -m mscgan.evaluate --run RUN [--split test] [--pairs N] [--data DIR] [--out FILE]`

For each image that the family shows (stage I, stage II) and, as the baseline, a copy of the source image: SSIM and
mask-SSIM by protocols A and B (mscgan/metrics/ssim.py), L1 and sharpness, over all pairs of the split or N spread
evenly over them. All scores are of the 8-bit images that `generate` writes. Means with 95 % intervals, by a bootstrap
over people: pairs of one person are alike. Prints a table and writes RUN/evaluation.json. What is less or other than
all test pairs of the run's own shards gets a name that says so, as evaluation-train-3-pairs.json, and so never
replaces it.
"""

import argparse
import hashlib
import json
import os
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from mscgan import files, trained
from mscgan.checks import check_place
from mscgan.data.read import choose_pairs, open_shards, read_images
from mscgan.data.shards import ShardSet
from mscgan.errors import UserError, run
from mscgan.metrics.l1 import l1
from mscgan.metrics.sharpness import sharpness
from mscgan.metrics.ssim import DESCRIPTIONS, mask_ssim, ssim
from mscgan.ops.body_mask import body_mask
from mscgan.pictures import to_uint8
from mscgan.trained import BATCH, Trained

SCORES = ("ssim_A", "ssim_B", "mask_ssim_A", "mask_ssim_B", "L1", "sharpness")
RESAMPLES = 1000  # of the bootstrap
WORTH_PROCESSES = 256  # pairs from which starting processes takes less time than it saves


def evaluate(folder: Path, split: str = "test", pairs: int | None = None, root: str = "") -> dict:
    """The scores of a run, as evaluation.json holds them; writes nothing.

    Args:
        folder: the run.
        split: of the shards.
        pairs: how many, spread evenly over the split's table; None for all.
        root: shards to use instead of the run's data.root.

    Raises:
        UserError: what trained.load, open_shards and choose_pairs raise.
    """
    data = trained.read_config(folder).data
    shards = open_shards(data, split, root)
    rows = choose_pairs(shards, len(shards.pairs) if pairs is None else pairs)
    model = trained.load(folder)
    cores = len(os.sched_getaffinity(0))
    batches = _batches(model, shards, rows)
    scores = _in_processes(batches, cores) if cores > 1 and len(rows) >= WORTH_PROCESSES else map(_score, batches)
    bar = tqdm(total=len(rows), unit="pair", disable=not sys.stderr.isatty())
    table: dict[str, list[np.ndarray]] = {}
    targets: list[float] = []
    for batch, sharpness_of_targets in scores:
        targets += sharpness_of_targets
        for method, rows_of_batch in batch.items():
            table.setdefault(method, []).append(rows_of_batch)
        bar.update(len(rows_of_batch))
    bar.close()
    scale = np.array([1.0] * (len(SCORES) - 1) + [np.mean(targets) or 1.0])
    people = np.array(shards.persons)[shards.pairs[rows, 1]]
    return {
        "split": split,
        "dataset": shards.dataset,
        "pairs": len(rows),
        "pairs_in_split": len(shards.pairs),
        "pairs_chosen": "all" if len(rows) == len(shards.pairs) else "spread evenly over the split's table",
        "people": len(np.unique(people)),
        "shards": str(shards.root.absolute()),
        "shards_fingerprint": shards.fingerprint,
        "config_sha256": _sha256(folder / "config.yaml"),
        "generator_sha256": _sha256(folder / "generator.safetensors"),
        "protocols": {
            "ssim_A": DESCRIPTIONS["A"],
            "ssim_B": DESCRIPTIONS["B"],
            "mask_ssim": f"both images black outside the target's body mask ({data.mask}, radius "
            f"{data.radius:g}), then as above over the whole frame",
            "L1": "mean absolute difference on [-1, 1]; lower is better",
            "sharpness": "variance of the grey image's Laplacian, over the mean of the targets'",
            "interval": f"95 % percentile bootstrap over people, {RESAMPLES} resamples, seed 0",
        },
        "scores": {method: _summary(np.concatenate(parts) / scale, people) for method, parts in table.items()},
    }


def _batches(model: Trained, shards: ShardSet, rows: np.ndarray) -> Iterator[tuple]:
    """(target images, their masks (N, H, W) uint8, {method: (N, H, W, 3) uint8}), a batch of rows at a time."""
    data = model.config.data
    for start in range(0, len(rows), BATCH):
        sources, targets = shards.pairs[rows[start : start + BATCH]].T
        x, y = read_images(shards, sources), read_images(shards, targets)
        keypoints = torch.from_numpy(shards.keypoints[targets])
        made = model.images(torch.from_numpy(x), keypoints)
        mask = body_mask(keypoints, data.height, data.width, data.mask, radius=data.radius)
        methods = {title.replace(" ", "_"): to_uint8(images) for title, images in made.items()}
        yield y, mask[:, 0].to(torch.uint8).numpy(), {"copy_source": x} | methods


def _score(batch: tuple) -> tuple[dict[str, np.ndarray], list[float]]:
    """{method: (N, scores) float64}, and the sharpness of the N targets."""
    targets, masks, methods = batch
    scores = {
        method: np.array(
            [
                (
                    ssim(image, target, "A"),
                    ssim(image, target, "B"),
                    mask_ssim(image, target, mask, "A"),
                    mask_ssim(image, target, mask, "B"),
                    l1(image, target),
                    sharpness(image),
                )
                for image, target, mask in zip(images, targets, masks, strict=True)
            ]
        )
        for method, images in methods.items()
    }
    return scores, [sharpness(target) for target in targets]


def _in_processes(batches: Iterator[tuple], cores: int) -> Iterator[tuple]:
    """As map(_score, batches), in order, over processes; at most two batches a process wait in memory."""
    # From a fork server, since a fork of a process that has used CUDA or has threads may hang. It imports the slow
    # packages once for all.
    context = get_context("forkserver")
    context.set_forkserver_preload(["mscgan.trained", "mscgan.metrics.ssim"])
    with ProcessPoolExecutor(cores, mp_context=context) as pool:
        waiting: deque[Future[tuple]] = deque()
        for batch in batches:
            waiting.append(pool.submit(_score, batch))
            if len(waiting) > 2 * cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _summary(table: np.ndarray, people: np.ndarray) -> dict:
    """{score: {"mean", "low", "high"}} of (N, scores) and the person of each pair; no interval (null) where all pairs
    are of one person."""
    _, person, counts = np.unique(people, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), len(SCORES)))
    np.add.at(sums, person, table)
    draws = np.random.default_rng(0).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=RESAMPLES)
    means = draws @ sums / (draws @ counts)[:, None]
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    several = len(counts) > 1
    return {
        score: {
            "mean": float(table[:, s].mean()),
            "low": float(low[s]) if several else None,
            "high": float(high[s]) if several else None,
        }
        for s, score in enumerate(SCORES)
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def format_table(result: dict) -> str:
    """The scores as text, a line a method."""
    titles = {"ssim_A": "SSIM A", "ssim_B": "SSIM B", "mask_ssim_A": "mask-SSIM A", "mask_ssim_B": "mask-SSIM B"}
    lines = [
        f"{result['dataset']}, split {result['split']}: {result['pairs']} of {result['pairs_in_split']} pairs, "
        f"{result['people']} people; mean [95 % interval]; for L1 lower is better, the target's sharpness is 1",
        " " * 12 + "".join(f"{titles.get(score, score):>22}" for score in SCORES),
    ]
    for method, scores in result["scores"].items():
        cells = []
        for score in SCORES:
            cell = scores[score]
            interval = "" if cell["low"] is None else f" [{cell['low']:.3f}, {cell['high']:.3f}]"
            cells.append(f"{cell['mean']:.3f}{interval}")
        lines.append(f"{method.replace('_', ' '):<12}" + "".join(f"{cell:>22}" for cell in cells))
    return "\n".join(lines)


def file_name(result: dict, run_root: str) -> str:
    """evaluation.json for all test pairs of the shards at `run_root`, the run's own; else with what differs in it."""
    parts = [result["split"]] if result["split"] != "test" else []
    if os.path.realpath(result["shards"]) != os.path.realpath(run_root):
        parts.append(Path(result["shards"]).name)
    if result["pairs"] < result["pairs_in_split"]:
        parts.append(f"{result['pairs']}-pairs")
    return "-".join(["evaluation", *parts]) + ".json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mscgan.evaluate", description="Scores a trained run.")
    parser.add_argument("--run", type=Path, required=True, help="the run's folder")
    parser.add_argument("--split", default="test", help="of the shards")
    parser.add_argument("--pairs", type=int, help="score so many pairs, spread evenly over the split; all by default")
    parser.add_argument("--data", default="", help="shards to use instead of the run's data.root")
    parser.add_argument("--out", type=Path, help="the JSON file to write; one in the run's folder by default")
    options = parser.parse_args()
    if options.out:
        check_place(options.out, "--out")
    torch.backends.cudnn.deterministic = True  # or transposed convolutions may differ from run to run
    result = evaluate(options.run, options.split, options.pairs, options.data)
    print(format_table(result), flush=True)
    out = options.out or options.run / file_name(result, trained.read_config(options.run).data.root)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        files.write(out, json.dumps(result, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror}); give another file with --out") from error
    print(out)


if __name__ == "__main__":
    run(main)
