"""What a build should be known for: people, items and images that its splits share, and joints that are missing."""

from collections import Counter
from collections.abc import Callable
from itertools import combinations

import numpy as np

EXAMPLES = 5  # of duplicates


def audit(
    keys: dict[str, list[str]],
    persons: dict[str, list[str]],
    pairs: dict[str, np.ndarray],
    facts: dict[str, list[dict]],
    item: Callable[[str], str],
) -> dict:
    """Counts, and a few examples, as JSON values.

    Args:
        keys, persons: of each image of each split.
        pairs: (P, 2) indices into them, a split.
        facts: of each image of each split: sha256 (of its JPEG bytes), keypoints (18 [x, y], [-1, -1] where missing).
        item: person -> what two splits may share though the person differs: the garment in another colour.
    """
    from mscgan.pose import JOINTS  # here, since it loads torch (3 s), which the worker processes need not

    shared, missing, duplicates = {}, {}, {}
    digests = {split: [image["sha256"] for image in images] for split, images in facts.items()}
    first = {}  # key of the first image with these bytes
    examples = []
    for split, images in facts.items():
        lacks = Counter(joint for image in images for joint, at in enumerate(image["keypoints"]) if at == [-1, -1])
        missing[split] = {"images": len(images)} | {name: lacks[joint] for joint, name in enumerate(JOINTS)}
        duplicates[split] = len(images) - len(set(digests[split]))
        for key, digest in zip(keys[split], digests[split], strict=True):
            if first.setdefault(digest, key) != key:
                examples.append([first[digest], key])
    for a, b in combinations(facts, 2):
        duplicates[f"{b} in {a}"] = sum(map(set(digests[a]).__contains__, digests[b]))
        items = [item(person) for person in persons[b]]
        both = {item(person) for person in persons[a]} & set(items)
        shared[f"{b} in {a}"] = {
            "persons": len(set(persons[a]) & set(persons[b])),
            "items": len(both),
            "of_items": len(set(items)),
            "pairs": sum(items[target] in both for _, target in pairs[b]),
            "of_pairs": len(pairs[b]),
        }
    return {
        "shared": shared,
        "missing_joints": missing,
        "duplicates": {"by": "SHA-256 of the JPEG bytes", **duplicates, "examples": examples[:EXAMPLES]},
    }


def lines(found: dict) -> list[str]:
    """An audit as text."""
    text = []
    for splits, count in found["shared"].items():
        garments = (
            f"; in another colour {count['items']:,} of {count['of_items']:,} garments "
            f"({count['pairs']:,} of {count['of_pairs']:,} pairs)"
        )
        text.append(f"audit: {splits}: {count['persons']:,} persons{garments if count['items'] else ''}")
    for split, count in found["missing_joints"].items():
        images = count["images"]
        shares = [f"{name} {100 * lacks / images:.0f} %" for name, lacks in count.items() if name != "images" and lacks]
        text.append(f"audit: missing joints in {split}: {', '.join(shares) or 'none'}")
    times = {place: count for place, count in found["duplicates"].items() if isinstance(count, int) and count}
    few = ", ".join(" = ".join(keys) for keys in found["duplicates"]["examples"])
    where = ", ".join(f"{count:,} {place if ' in ' in place else f'in {place}'}" for place, count in times.items())
    text.append(
        f"audit: images with the bytes of another: {where}: {few}" if times else "audit: no image is there twice"
    )
    return text
