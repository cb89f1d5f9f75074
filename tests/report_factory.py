"""Scores of a small run as evaluate writes them, for tests of the report: evaluation.json of schema 2 and the CSV."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np

from mscgan import config as configuration
from mscgan.data.shards import ShardSet

METHODS = ("copy_source", "mean_image", "real", "stage_I", "stage_II")


def score(value: float, low: float | None = None, high: float | None = None) -> dict:
    return {"value": value, "low": low, "high": high, "pairs": 4}


def write_curve(run: Path, lines: int = 4) -> None:
    """metrics.jsonl with stage I in its first half, stage II then."""
    with (run / "metrics.jsonl").open("w") as file:
        for number in range(1, lines + 1):
            one = {"pairs": 100 * number, "steps": 10 * number, "epoch": 0, "seconds": 6.0 * number}
            one |= {"pairs_per_second": 40.0 + number, "data_wait": 0.25, "L1_1": 1 / number}
            one |= {"stage": "I"} if 2 * number <= lines else {"stage": "II", "L1_2": 0.5, "D1_real": 0.7, "G_D1": 0.8}
            file.write(json.dumps(one) + "\n")


def write_scores(run: Path, **changes) -> dict:
    """RUN/evaluation.json and RUN/evaluation-pairs.csv, by chance. Pair i of stage_II has ssim_A (i + 1) / 1000.

    changes: other values of evaluation.json's keys. Returns what is in it.
    """
    data = configuration.load(str(run / "config.yaml")).data
    shards = ShardSet(data.root, "test")
    rng = np.random.default_rng(3)
    names = ("ssim_A", "l1", "sharpness", "fid")
    found = {
        "schema": 2, "version": "0.1.0", "split": "test", "dataset": shards.dataset, "family": "mscgan", "variant": "",
        "pairs": len(shards.pairs), "pairs_in_split": len(shards.pairs), "pairs_chosen": "all", "people": 4,
        "shards": data.root, "shards_fingerprint": shards.fingerprint,
        "config_sha256": hashlib.sha256((run / "config.yaml").read_bytes()).hexdigest(),
        "generator_sha256": hashlib.sha256((run / "generator.safetensors").read_bytes()).hexdigest(),
        "protocols": {"ssim_A": "PG2's", "interval": "95 % of a bootstrap over people"},
        "left_out": {"lpips": "no weights of AlexNet"}, "audit": {"missing_keypoints": 3, "skipped": [4, 5]},
        "scores": {method: {name: score(float(rng.uniform()), 0.1, 0.9) for name in names} for method in METHODS},
        "differences": {"stage_II - stage_I": {name: score(0.25, 0.2, 0.3) for name in names}},
    } | changes  # fmt: skip
    (run / "evaluation.json").write_text(json.dumps(found))
    with (run / "evaluation-pairs.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["method", "source", "target", "person", "ssim_A", "l1"])
        for method in METHODS:
            for number, (source, target) in enumerate(shards.pairs):
                value = (number + 1) / 1000 if method == "stage_II" else float(rng.uniform())
                rows.writerow([method, shards.names[source], shards.names[target], shards.persons[target], value, 0.5])
    return found
