"""Pairs (source image, target image) of a person, by the field's published rules; as a command, writes a from,to list.

    python shards/pairs.py {market1501,deepfashion} --annotations CSV [--sample N --seed 0] --out FILE

needs no images. Pairs are all ordered pairs of a person's usable images, persons in order of first appearance in the
annotation, images in its order (pose-gan, create_pairs_dataset.py).
"""

import argparse
import hashlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mscgan import files
from mscgan.arguments import Parser
from mscgan.checks import check_apart, check_together
from mscgan.data.annotations import Annotation, read
from mscgan.errors import UserError, run
from mscgan.paths import a_path
from shards import deepfashion, market1501

DATASETS = {"market1501": market1501, "deepfashion": deepfashion}


def ordered_pairs(persons: list[str]) -> np.ndarray:
    """(P, 2) int64: all ordered pairs of two images of a person. persons: whom each image shows."""
    images: dict[str, list[int]] = {}
    for image, person in enumerate(persons):
        images.setdefault(person, []).append(image)
    blocks = [np.empty((0, 2), np.int64)]
    for same in map(np.asarray, images.values()):
        source, target = np.nonzero(~np.eye(len(same), dtype=bool))
        blocks.append(np.stack([same[source], same[target]], axis=1))
    return np.concatenate(blocks)


def sample(pairs: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` different rows, those and in the order of pandas' `sample(n=count, random_state=seed)`, with which the
    public lists were drawn; all rows, shuffled, if there are fewer."""
    rows = np.random.RandomState(seed).choice(len(pairs), size=min(count, len(pairs)), replace=False)
    return pairs[rows]


def by_hash(persons: Iterable[str], item: Callable[[str], str] = str) -> list[str]:
    """The persons by the SHA-256 of their item: an order that looks like chance and depends on nobody else. Those whom
    a split holds out are its first."""
    return sorted(persons, key=lambda person: (hashlib.sha256(item(person).encode()).hexdigest(), person))


def usable(rows: list[Annotation], dataset) -> tuple[list[Annotation], list[str]]:
    """The rows that pairs are made of and the person of each: junk, distractors and rows without the four joints
    are left out. dataset: a module of DATASETS."""
    kept = [(row, dataset.person(dataset.flat(row.name))) for row in rows]
    kept = [(row, person) for row, person in kept if person is not None and row.usable]
    return [row for row, _ in kept], [person for _, person in kept]


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("--annotations", type=a_path, required=True, metavar="CSV")
    parser.add_argument("--sample", type=int, metavar="N", help="draw N of the pairs (all, in order)")
    parser.add_argument("--seed", type=int, help="of the draw (0: as the public lists)")
    parser.add_argument("--out", type=a_path, required=True, metavar="FILE")
    a = parser.parse_args()
    check_together(a, {"--sample": (a.sample is not None, ("seed",))})
    check_apart(a.out, "--out", [a.annotations])
    seed = a.seed or 0
    check_draw(a.sample, seed)
    dataset = DATASETS[a.dataset]
    rows = read(a.annotations, dataset.HEIGHT, dataset.WIDTH)
    kept, persons = usable(rows, dataset)
    pairs = ordered_pairs(persons)
    chosen = pairs if a.sample is None else sample(pairs, a.sample, seed)
    try:
        files.write(a.out, "from,to\n" + "".join(f"{kept[i].name},{kept[j].name}\n" for i, j in chosen))
    except OSError as error:
        raise UserError(f"cannot write {a.out}: {error.strerror}") from error
    print(
        f"{len(rows):,} rows, {len(kept):,} usable, {len(set(persons)):,} persons, {len(pairs):,} pairs; "
        f"{len(chosen):,} written to {a.out}"
    )


def check_draw(count: int | None, seed: int) -> None:
    """UserError unless count is None or above 0 and seed fits numpy's generator."""
    if count is not None and count < 1:
        raise UserError(f"--sample {count}: give the number of pairs to draw, 1 or more")
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed {seed}: give a number from 0 to {2**32 - 1}")


if __name__ == "__main__":
    run(main)
