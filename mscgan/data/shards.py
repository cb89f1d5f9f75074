"""One split of a shard folder: its images by number, their keypoints and people, and the table of pairs.

A folder holds manifest.json, WebDataset tars (KEY.jpg and KEY.json an image), DALI's index beside each tar and two
tables a split, of its pairs and of what all its KEY.json say; shards/build.py writes it. Nothing is extracted or
unpickled: bytes are read in place (`os.pread` at the index's offset), at most as many as the limits below allow.
Opening checks what is cheap to check (sizes of the tars, sha256 of index and tables); the tars' own checksums are the
work of tar_check.py, and of shards/verify.py, which also holds the table of images against the tars.
"""

import hashlib
import os
from pathlib import Path

import numpy as np

from mscgan import files
from mscgan.data import jpeg
from mscgan.data.manifest import check_size, fingerprint, read_manifest
from mscgan.data.tables import image_record, image_table, pair_table
from mscgan.errors import UserError

_INDEX_VERSION = "v1.2"  # of DALI's wds2idx
_MAX_RECORD = 64 << 10  # bytes of a KEY.json
_MAX_INDEX_LINE = 1024  # bytes an image


class ShardSet:
    """The images, keypoints and pairs of one split, read only.

    Attributes:
        height, width: pixels of every image.
        dataset: the data set's name.
        split: the name of this one.
        splits: the names of all splits of the folder.
        keys: n member names, in tar order.
        names: n file names of the data set, as a.jpg.
        persons: n names of people.
        keypoints: (n, 18, 2) float32, (x, y) pixels, missing joints (-1, -1).
        pairs: (P, 2) int32, rows (source image, target image).
        tars: the path of each tar -> its sha256 as the manifest has it.
        fingerprint: hex; the same for the same images and pairs in the same order.
        shared: "test in train" -> what two splits have in common, as shards/audit.py counted it; {} in older shards.

    Raises:
        UserError: the folder is missing, half-written, damaged, of another schema, or has no such split.
    """

    def __init__(self, root: str | Path, split: str):
        manifest = read_manifest(root, split)
        self.root, self.split, self._manifest = Path(root), split, manifest
        self.dataset, self.height, self.width = manifest["dataset"], manifest["height"], manifest["width"]
        self.splits = sorted(manifest["splits"])
        of = manifest["splits"][split]
        tars, images = of["tars"], of["images"]
        self.tars = {self.root / tar["name"]: tar["sha256"] for tar in tars}
        self._open(tars)
        self.pairs = self._pairs(of["pair_table"], images, of["pairs"])
        self.fingerprint = fingerprint(manifest, split)
        audit = manifest.get("audit")
        self.shared: dict = audit.get("shared", {}) if isinstance(audit, dict) else {}
        if len(self.keys) != images:
            raise self._damaged("manifest.json", f"{images} images in {split!r}, its tars list {len(self.keys)}")
        self.keypoints, self.names, self.persons = self._images(of["image_table"], images)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.keys)

    def read(self, i: int) -> bytes:
        """The JPEG bytes of image i."""
        return self._pread(i, *self._jpgs[i])

    def check_size(self, height: int, width: int) -> None:
        """Refuses images of another size than the model's."""
        check_size(self.root, self._manifest, height, width)

    def locate(self, i: int) -> str:
        """Where image i lies, as "train-00000.tar:KEY"."""
        return f"{self._names[self._tar[i]]}:{self.keys[i]}"

    def _open(self, tars: list[dict]) -> None:
        """Opens the tars and takes over their indices: each image's tar, and (offset, size) of its jpg."""
        self.keys: list[str] = []
        self._names, self._files, self._tar, self._jpgs = [], [], [], []
        for number, tar in enumerate(tars):
            try:
                file = files.open_plain(self.root / tar["name"])
            except OSError as error:
                raise self._damaged(tar["name"], _missing(error)) from error
            length = os.fstat(file.fileno()).st_size
            if length != tar["bytes"]:
                raise self._damaged(tar["name"], f"has {length} bytes, manifest.json says {tar['bytes']}")
            index = self._checked(tar["index"], tar["index_sha256"], (tar["images"] + 1) * _MAX_INDEX_LINE)
            try:
                members = _parse_index(index.decode(), length)
            except ValueError as error:
                raise self._damaged(tar["index"], str(error)) from error
            if len(members) != tar["images"]:
                raise self._damaged(tar["index"], f"lists {len(members)} images, manifest.json {tar['images']}")
            self._names.append(tar["name"])
            self._files.append(file)
            for key, jpg in members:
                self.keys.append(key)
                self._tar.append(number)
                self._jpgs.append(jpg)

    def _pairs(self, table: dict, images: int, rows: int) -> np.ndarray:
        data = self._checked(table["name"], table["sha256"], 8 * rows + 4096)
        try:
            pairs = pair_table(data, rows)
        except ValueError as error:
            raise self._damaged(table["name"], str(error)) from error
        if rows and not (0 <= pairs.min() and pairs.max() < images):
            raise self._damaged(table["name"], f"names images outside 0..{images - 1}")
        return pairs

    def _images(self, table: dict, rows: int) -> tuple[np.ndarray, list[str], list[str]]:
        """Keypoints, names and people."""
        data = self._checked(table["name"], table["sha256"], image_record().itemsize * rows + 4096)
        try:
            return image_table(data, rows)
        except ValueError as error:
            raise self._damaged(table["name"], str(error)) from error

    def _pread(self, i: int, offset: int, size: int) -> bytes:
        data = os.pread(self._files[self._tar[i]].fileno(), size, offset)
        if len(data) != size:
            raise self._damaged(self.locate(i), f"{len(data)} bytes where the index says {size}")
        return data

    def _checked(self, name: str, sha256: str, limit: int) -> bytes:
        """The bytes of a small file of the folder, whose checksum is that of the manifest."""
        try:
            data = files.read(self.root / name, limit)
        except OSError as error:
            raise self._damaged(name, _missing(error)) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise self._damaged(name, "is not the file that manifest.json describes (sha256 differs)")
        return data

    def _damaged(self, what: str, why: str) -> UserError:
        return UserError(
            f"{self.root}/{what}: {why}; see `python shards/verify.py {self.root}`, or build the folder again"
        )


def _missing(error: OSError) -> str:
    return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"


def _parse_index(text: str, length: int) -> list[tuple[str, tuple[int, int]]]:
    """(key, (offset, size) of the jpg) of each line of a wds2idx index."""
    head, *lines = text.splitlines()
    if head.split() != [_INDEX_VERSION, str(len(lines))]:
        raise ValueError(f"begins with {head!r}, expected '{_INDEX_VERSION} {len(lines)}'")
    members = []
    for line in lines:
        words = line.split(" ")
        if words[0::4] not in (["jpg", "json"], ["json", "jpg"]) or len(words) != 8:
            raise ValueError(f"line {line!r} is not one jpg and one json, each with offset, size and name")
        found = {ext: (int(offset), int(size)) for ext, offset, size in zip(words[0::4], words[1::4], words[2::4])}
        for (offset, size), limit in ((found["jpg"], jpeg.LARGEST), (found["json"], _MAX_RECORD)):
            if offset < 0 or not 0 <= size <= limit or offset + size > length:
                raise ValueError(f"line {line!r}: a member is above {limit} bytes or ends outside the tar")
        members.append((words[3].removesuffix(f".{words[0]}"), found["jpg"]))
    return members
