"""Writes a shard folder: WebDataset tars, DALI indices, tables of pairs and images and, last of all, manifest.json.

A build is described by a `Plan`, whose images are named and grouped by person but not yet made. Processes make the
images, this one writes the tars in order, so the bytes of a tar do not depend on the number of processes. Each file
is written under a temporary name, synced and renamed. While a build runs, OUT/.build holds what it is (plan.json) and
a record of each finished tar. The same command after a kill keeps the tars whose records and bytes agree and whose
images are still to be made from the same files: a picture may have been mended in between. It makes again, too, what
is damaged of a finished folder.
"""

import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mscgan.data.manifest import SCHEMA
from mscgan.data.tables import JOINTS, image_record
from mscgan.errors import UserError, say
from mscgan.files import whole
from shards.audit import audit
from shards.claim import locked, read_plan, refuse_other
from shards.digest import file_sha256, sha256
from shards.finished import damage, read_manifest
from shards.finished import facts as facts_of
from shards.index import index_text
from shards.parallel import mapper

# 1,024 images are 6 MB at 128x64 and 13 MB at 256x256: a kill costs a few seconds of work, a cluster's file system
# sees a dozen files for Market-1501 and fifty for DeepFashion, and memory holds one tar's images at most.
IMAGES_PER_TAR = 1024
LONGEST_KEY = 90  # so that KEY.json fits the 100 bytes of a plain tar header


@dataclass(frozen=True)
class Image:
    """One image to be made: `recipe` is what the plan's `make` needs for it (picklable). made_from: a text that is
    another where the file it is made from is another; empty where the plan's source says it all."""

    key: str
    person: str
    recipe: object
    made_from: str = ""


@dataclass(frozen=True)
class Sample:
    """One image made. keypoints: 18 [x, y] in pixels, [-1, -1] where missing."""

    name: str
    keypoints: list
    jpeg: bytes


@dataclass(frozen=True)
class Split:
    """images: grouped by person, in tar order. pairs: (P, 2) indices into images."""

    images: list[Image]
    pairs: np.ndarray


@dataclass(frozen=True)
class Plan:
    """All that a build makes. source: what it was told to make, files: what it found to make it from, both JSON
    values; a build with the same source and other files goes on, if it is not finished, and is another if it is.
    make: a picklable function of a recipe; notes: further text files to write, name -> text. item: what of a person
    the audit looks for in the other splits."""

    dataset: str
    height: int
    width: int
    source: dict
    splits: dict[str, Split]
    make: Callable[[object], Sample]
    notes: dict[str, str] = field(default_factory=dict)
    files: dict = field(default_factory=dict)
    item: Callable[[str], str] = str

    def sha256(self) -> str:
        splits = {n: [[i.key for i in s.images], sha256(_npy(s.pairs))] for n, s in self.splits.items()}
        identity = [
            SCHEMA,
            IMAGES_PER_TAR,
            self.dataset,
            self.height,
            self.width,
            self.source | self.files,
            splits,
        ]
        return sha256(json.dumps(identity, sort_keys=True).encode())


def write(plan: Plan, out: Path, workers: int) -> bool:
    """Builds the plan's shard folder in `out`; False where it was already there, whole.

    Raises:
        UserError: `out` holds something else or cannot be written to, or an image cannot be made.
    """
    _check_keys(plan)
    try:
        return _build(plan, out, workers)
    except OSError as error:
        raise UserError(
            f"the build in {out} stopped: {error.strerror or error}; mend that (is the disk full?) and give the same "
            "command again: it goes on"
        ) from error


def _build(plan: Plan, out: Path, workers: int) -> bool:
    with _claimed(out, plan) as todo:
        if not todo:
            return False
        splits: dict[str, dict] = {}
        facts: dict[str, list[dict]] = {name: [] for name in plan.splits}  # of each image, for its table and the audit
        tars = {name: list(_tars(name, split.images)) for name, split in plan.splits.items()}
        _remove_others(out, {tar for cut in tars.values() for tar, _ in cut})
        everything = sum(len(split.images) for split in plan.splits.values())
        with mapper(workers, chunk=16) as run, tqdm(total=everything, unit="image", desc=plan.dataset) as bar:
            for name, split in plan.splits.items():
                records = []
                for tar, images in tars[name]:
                    done = _finished(out, tar, images)
                    if done is None:
                        done = _write_tar(out, tar, name, images, run(plan.make, [i.recipe for i in images]), bar)
                    else:
                        bar.update(len(images))
                    records.append(done["record"])
                    facts[name] += done["facts"]
                tables = {"pair_table": (f"{name}-pairs.npy", _npy(split.pairs)),
                          "image_table": (f"{name}-images.npy", _images(split.images, facts[name]))}  # fmt: skip
                for table, data in tables.values():
                    put(out / table, data)
                splits[name] = {
                    "images": len(split.images),
                    "persons": len({image.person for image in split.images}),
                    "pairs": len(split.pairs),
                    "tars": records,
                } | {of: {"name": table, "sha256": sha256(data)} for of, (table, data) in tables.items()}
        for name, text in plan.notes.items():
            _put_note(out / name, text.encode())
        manifest = {
            "schema": SCHEMA,
            "dataset": plan.dataset,
            "height": plan.height,
            "width": plan.width,
            "source": _source(plan),
            "splits": splits,
            "audit": audit(
                {name: [image.key for image in split.images] for name, split in plan.splits.items()},
                {name: [image.person for image in split.images] for name, split in plan.splits.items()},
                {name: split.pairs for name, split in plan.splits.items()},
                facts,
                plan.item,
            ),
        }
        put(out / "manifest.json", json.dumps(manifest, indent=1).encode())
        shutil.rmtree(out / ".build")
    return True


def put(path: Path, data: bytes) -> None:
    """Writes a file so that it is whole or absent, also after a crash of the machine."""
    with whole(path) as temporary, temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _put_note(path: Path, data: bytes) -> None:
    """One that somebody has mended meanwhile, as found poses are, stays beside it as NAME.old."""
    if path.exists() and path.read_bytes() != data:
        os.replace(path, path.with_name(f"{path.name}.old"))
    put(path, data)


def _npy(pairs: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(pairs, dtype=np.int32).reshape(-1, 2))
    return buffer.getvalue()


def _images(images: list[Image], facts: list[dict]) -> bytes:
    """The table of a split's images (mscgan/data/tables.py)."""
    names = [fact["name"].encode() for fact in facts]
    persons = [image.person.encode() for image in images]
    longest = max(map(len, names), default=1), max(map(len, persons), default=1)
    table = np.zeros(len(images), image_record(*longest))
    table["name"], table["person"] = names, persons
    table["keypoints"] = np.array([fact["keypoints"] for fact in facts]).reshape(-1, JOINTS, 2)
    buffer = io.BytesIO()
    np.save(buffer, table)
    return buffer.getvalue()


def _check_keys(plan: Plan) -> None:
    keys = set()
    for split in plan.splits.values():
        for image in split.images:
            if image.key in keys:
                raise UserError(f"two images would have the key {image.key!r}; rename one of them")
            if not image.key or len(image.key.encode()) > LONGEST_KEY or set(image.key) & set("./ \n"):
                raise UserError(f"{image.key!r} cannot be a key: 1-{LONGEST_KEY} bytes without dot, slash or space")
            keys.add(image.key)


def _tars(split: str, images: list[Image]) -> Iterator[tuple[str, list[Image]]]:
    """Cuts the images into tars; a person stays in one tar, unless that would be far over IMAGES_PER_TAR."""
    start, number = 0, 0
    while start < len(images):
        end = min(start + IMAGES_PER_TAR, len(images))
        while start < end < len(images) and images[end].person == images[end - 1].person:
            end -= 1
            if end == start:  # one person alone fills a tar
                end = start + IMAGES_PER_TAR
                break
        yield f"{split}-{number:05d}.tar", images[start:end]
        start, number = end, number + 1


def _write_tar(out: Path, tar: str, split: str, images: list[Image], samples: Iterable[Sample], bar: tqdm) -> dict:
    """What .build keeps of a finished tar: made_from, its record in the manifest, facts of its images."""
    from webdataset import TarWriter  # here, since it loads torch (3 s), which the worker processes need not

    facts = []
    with whole(out / tar) as temporary, temporary.open("wb") as file:
        with TarWriter(file, user="mscgan", group="mscgan", mtime=0, encoder=False) as writer:
            for image, sample in zip(images, samples, strict=True):
                about = {"name": sample.name, "person": image.person, "split": split, "keypoints": sample.keypoints}
                facts.append({"sha256": sha256(sample.jpeg), "name": sample.name, "keypoints": sample.keypoints})
                writer.write({"__key__": image.key, "jpg": sample.jpeg, "json": json.dumps(about).encode()})
                bar.update()
        file.flush()
        os.fsync(file.fileno())
    index = index_text(out / tar).encode()
    index_name = tar.removesuffix(".tar") + ".idx"
    put(out / index_name, index)
    record = {
        "name": tar,
        "images": len(images),
        "bytes": (out / tar).stat().st_size,
        "sha256": file_sha256(out / tar),
        "index": index_name,
        "index_sha256": sha256(index),
    }
    return _note_done(out, images, record, facts)


def _note_done(out: Path, images: list[Image], record: dict, facts: list[dict]) -> dict:
    """Writes down that a tar is finished; what `_finished` will give."""
    done = {"made_from": _made_from(images), "record": record, "facts": facts}
    put(out / ".build" / f"{record['name']}.json", json.dumps(done).encode())
    return done


def _made_from(images: list[Image]) -> str:
    return sha256(json.dumps([[image.key, image.person, image.made_from] for image in images]).encode())


def _remove_others(out: Path, tars: set[str]) -> None:
    """Removes the tars that an earlier, stopped run has finished and that are none of these: it had more images."""
    for path in (out / ".build").glob("*.tar.json"):
        tar = path.name.removesuffix(".json")
        if tar not in tars:
            for name in (tar, tar.removesuffix(".tar") + ".idx"):
                (out / name).unlink(missing_ok=True)
            path.unlink()


def _finished(out: Path, tar: str, images: list[Image]) -> dict | None:
    """What `_write_tar` gave for a tar of these images in an earlier, stopped run, if its bytes are still those."""
    path = out / ".build" / f"{tar}.json"
    if not path.exists():
        return None
    try:
        done = json.loads(path.read_text())
        if done["made_from"] != _made_from(images):
            return None
        record, facts = done["record"], done["facts"]
        digests = {tar: record["sha256"], tar.removesuffix(".tar") + ".idx": record["index_sha256"]}
    except (ValueError, LookupError, TypeError, RecursionError):  # not what a build wrote
        return None
    whole = all((out / name).exists() and file_sha256(out / name) == digest for name, digest in digests.items())
    return done if whole and len(facts) == len(images) else None


@contextmanager
def _claimed(out: Path, plan: Plan) -> Iterator[bool]:
    """Makes `out` this plan's folder and locks it against a second build; yields False if it is there, whole."""
    state = out / ".build"
    manifest = read_manifest(out) if (out / "manifest.json").exists() else None
    if manifest is not None:
        refuse_other(out, manifest, _source(plan), _of_files(plan), finished=True)
        damaged = damage(out, manifest)
        if not damaged:
            shutil.rmtree(state, ignore_errors=True)  # of a build killed on its last step
            yield False
            return
    with locked(out):
        for left_over in out.glob(".*.tmp"):  # of a build that was killed
            left_over.unlink()
        if manifest is not None:
            _open_again(out, plan, manifest, damaged)
        elif (state / "plan.json").exists():
            refuse_other(out, read_plan(out), _source(plan), _of_files(plan), finished=False)
        else:
            put(state / "plan.json", json.dumps({"source": _source(plan)}).encode())
        yield True


def _open_again(out: Path, plan: Plan, manifest: dict, damaged: dict[str, str]) -> None:
    """Makes a finished build with damaged files one that was stopped: it goes on, and keeps the tars that are whole."""
    records = {tar["name"]: tar for split in manifest["splits"].values() for tar in split["tars"]}
    for name, split in plan.splits.items():
        for tar, images in _tars(name, split.images):
            if tar in records and damaged.keys().isdisjoint((tar, records[tar]["index"])):
                _note_done(out, images, records[tar], facts_of(out / tar))
    put(out / ".build/plan.json", json.dumps({"source": _source(plan)}).encode())
    (out / "manifest.json").unlink()
    for name, why in damaged.items():
        say(f"{out}/{name} {why}: it is made again")


def _source(plan: Plan) -> dict:
    return {**plan.source, **plan.files, "plan_sha256": plan.sha256()}


def _of_files(plan: Plan) -> tuple[str, ...]:
    """What of the source is of the files that the plan found."""
    return *plan.files, "plan_sha256"
