"""Writes small shard folders for tests, straight from the contract and by the standard library's tarfile alone."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def jpeg(seed: int, height: int, width: int, quality: int = 90) -> bytes:
    """A JPEG of smooth random colours, another for each seed."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 4, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(out, "JPEG", quality=quality)
    return out.getvalue()


def keypoints(seed: int, height: int, width: int) -> np.ndarray:
    """(18, 2) float32 points inside the image, about one in six missing (-1, -1)."""
    rng = np.random.default_rng([seed, 1])
    points = np.round(rng.uniform(0, 1, (18, 2)) * [width - 1, height - 1], 2).astype(np.float32)
    points[rng.uniform(size=18) < 1 / 6] = -1
    return points


def write_shards(
    root: Path,
    persons: int = 4,
    views: int = 3,
    height: int = 64,
    width: int = 32,
    tars: int = 2,
    splits: tuple[str, ...] = ("train", "test"),
    images: dict[int, bytes] | None = None,
) -> Path:
    """Writes root with `persons` x `views` images a split and all ordered pairs of a person.

    `images` puts other bytes in the place of some JPEGs (by number, in every split), for example broken ones.
    """
    root.mkdir(parents=True, exist_ok=True)
    manifest = {"schema": 2, "dataset": "toy", "height": height, "width": width, "source": {}, "splits": {}}
    for number, split in enumerate(splits):
        people = np.repeat(np.arange(persons), views)
        count = len(people)
        listed, records = [], []
        for t, chunk in enumerate(np.array_split(np.arange(count), tars)):
            name = f"{split}-{t:05d}"
            lines = []
            with tarfile.open(root / f"{name}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
                for i in chunk:
                    seed = int(i) + 10_000 * number
                    key = f"{split}_{people[i]:04d}_{i:06d}"
                    record = {
                        "name": f"{key}_original.jpg",
                        "person": f"{split}{people[i]:04d}",
                        "split": split,
                        "keypoints": keypoints(seed, height, width).tolist(),
                    }
                    records.append(record)
                    picture = (images or {}).get(int(i), None)
                    members = {
                        "jpg": jpeg(seed, height, width) if picture is None else picture,
                        "json": json.dumps(record).encode(),
                    }
                    words = []
                    for ext, data in members.items():
                        info = tarfile.TarInfo(f"{key}.{ext}")
                        info.size = len(data)
                        words += [ext, tar.offset + tarfile.BLOCKSIZE, len(data), info.name]
                        tar.addfile(info, io.BytesIO(data))
                    lines.append(" ".join(map(str, words)))
            (root / f"{name}.idx").write_text(f"v1.2 {len(lines)}\n" + "".join(f"{line}\n" for line in lines))
            listed.append(
                {
                    "name": f"{name}.tar",
                    "images": len(lines),
                    "bytes": (root / f"{name}.tar").stat().st_size,
                    "sha256": _sha256(root / f"{name}.tar"),
                    "index": f"{name}.idx",
                    "index_sha256": _sha256(root / f"{name}.idx"),
                }
            )
        pairs = [(i, j) for i in range(count) for j in range(count) if i != j and people[i] == people[j]]
        table = root / f"{split}-pairs.npy"
        np.save(table, np.array(pairs, np.int32).reshape(-1, 2), allow_pickle=False)
        images_table = root / f"{split}-images.npy"
        np.save(images_table, _image_table(records), allow_pickle=False)
        manifest["splits"][split] = {
            "images": count,
            "persons": persons,
            "pairs": len(pairs),
            "tars": listed,
            "pair_table": {"name": table.name, "sha256": _sha256(table)},
            "image_table": {"name": images_table.name, "sha256": _sha256(images_table)},
        }
    (root / "manifest.json").write_text(json.dumps(manifest))
    return root


def _image_table(records: list[dict]) -> np.ndarray:
    rows = [(record["keypoints"], record["name"].encode(), record["person"].encode()) for record in records]
    shape = np.shape(records[0]["keypoints"])
    return np.array(rows, [("keypoints", "<f4", shape), ("name", "S40"), ("person", "S20")])


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
