"""Reads one tar of shards back and finds its faults; nothing is extracted or unpickled."""

import json
import math
import os
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mscgan import files
from mscgan.data import jpeg
from shards.digest import file_sha256, sha256
from shards.index import index_text, members

LARGEST = {"jpg": jpeg.LARGEST, "json": 2**16}  # bytes of a member
LARGEST_INDEX = 64 * 2**20


class Record(NamedTuple):
    """What a KEY.json says; of one that cannot be read nothing."""

    name: str = ""
    person: str = ""
    keypoints: Sequence[Sequence[float]] = ()


@dataclass
class TarReport:
    """What a tar holds, in order, and its faults: "train-00000.tar:KEY: what"."""

    keys: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def read_tar(job: tuple[Path, dict, str, int, int]) -> TarReport:
    """job: folder, the tar's record in the manifest, split, height and width of the images."""
    root, tar, split, height, width = job
    path, report = root / tar["name"], TarReport()

    def fault(text: str) -> None:
        report.faults.append(f"{tar['name']}: {text}")

    try:
        with files.open_plain(path) as file:
            if (size := os.fstat(file.fileno()).st_size) != tar["bytes"]:
                fault(f"{size} bytes; manifest.json says {tar['bytes']}")
            elif file_sha256(path) != tar["sha256"]:
                fault("its bytes do not fit the checksum in manifest.json")
            for key, parts in _samples(path, fault).items():
                data = {extension: os.pread(file.fileno(), size, at) for extension, (at, size) in parts.items()}
                faults, record = check_sample(data, split, height, width)
                report.faults += [f"{tar['name']}:{key}: {text}" for text in faults]
                report.keys.append(key)
                report.records.append(record)
        _check_index(root / tar["index"], tar["index_sha256"], index_text(path).encode())
    except FileNotFoundError:
        fault("missing")
        return report
    except (tarfile.TarError, OSError, EOFError, OverflowError) as error:
        fault(f"cannot be read whole: {error}")
    except ValueError as error:
        fault(str(error))
    if len(report.keys) != tar["images"]:
        fault(f"{len(report.keys)} images; manifest.json says {tar['images']}")
    return report


def check_sample(data: dict[str, bytes], split: str, height: int, width: int) -> tuple[list[str], Record]:
    """(faults, record) of one image; data: its members by extension."""
    faults = [f"has no .{extension}" for extension in LARGEST if extension not in data]
    if "jpg" in data:
        try:
            jpeg.decode(data["jpg"], height, width)
        except ValueError as error:
            faults.append(f"bad image: {error}")
    if "json" not in data:
        return faults, Record()
    try:
        about = json.loads(data["json"])
        name, person, of, keypoints = (about[field] for field in ("name", "person", "split", "keypoints"))
        if not isinstance(name, str) or not isinstance(person, str) or of != split:
            raise ValueError(f"name {name!r}, person {person!r}, split {of!r}; expected two texts and {split!r}")
        if len(keypoints) != 18:
            raise ValueError(f"{len(keypoints)} keypoints; expected 18")
        for joint, (x, y) in enumerate(keypoints):
            inside = math.isfinite(x) and math.isfinite(y) and 0 <= x <= width - 1 and 0 <= y <= height - 1
            if not inside and [x, y] != [-1, -1]:
                faults.append(f"keypoint {joint} at x {x}, y {y} is outside {height}x{width}")
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        return [*faults, f"bad .json: {type(error).__name__}: {error}"], Record()
    return faults, Record(name, person, keypoints)


def _samples(path: Path, fault: Callable[[str], None]) -> dict[str, dict[str, tuple[int, int]]]:
    """key -> extension -> (offset, size); members that do not belong are named and left out."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for member in members(path):
        key, _, extension = member.name.partition(".")
        parts = found.setdefault(key, {})
        if extension not in LARGEST or extension in parts or member.size > LARGEST[extension]:
            fault(f"member {member.name!r} of {member.size} bytes does not belong there")
        else:
            parts[extension] = (member.offset_data, member.size)
    return found


def _check_index(path: Path, digest: str, expected: bytes) -> None:
    try:
        found = files.read(path, LARGEST_INDEX)
    except OSError as error:
        why = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise ValueError(f"its index {path.name} {why}") from error
    if found != expected:
        raise ValueError(f"{path.name} is not its index")
    if sha256(found) != digest:
        raise ValueError(f"{path.name} does not fit the checksum in manifest.json")
