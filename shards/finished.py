"""A finished folder of shards against its manifest: which of its files are damaged, and what its whole tars hold."""

import json
import os
from pathlib import Path

from mscgan import files
from mscgan.data.manifest import LARGEST, parse
from mscgan.errors import UserError
from shards.digest import file_sha256, sha256
from shards.index import members


def read_manifest(out: Path) -> dict:
    """The manifest of a folder that has one.

    Raises:
        UserError: it is damaged, or of another schema, so that nothing says what the folder has to hold.
    """
    path = out / "manifest.json"
    try:
        return parse(files.read(path, LARGEST))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path}: {reason}; give --out a new folder, or remove that one first") from error


def damage(out: Path, manifest: dict) -> dict[str, str]:
    """The files that are not as the manifest says: name -> what is wrong, in words."""
    return {name: why for name, digest, size in _listed(manifest) if (why := wrong(out / name, digest, size))}


def wrong(path: Path, digest: str, size: int | None = None) -> str:
    """What is wrong with a file that should have this SHA-256, and so many bytes if the manifest has them; or ""."""
    try:
        with files.open_plain(path) as file:
            length = os.fstat(file.fileno()).st_size
        if size is not None and length != size:
            return f"has {length:,} bytes where manifest.json says {size:,}"
        return "" if file_sha256(path) == digest else "does not have the SHA-256 that manifest.json says"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _listed(manifest: dict) -> list[tuple[str, str, int | None]]:
    """(name, SHA-256, bytes if the manifest has them) of every file that it lists."""
    listed: list[tuple[str, str, int | None]] = []
    for split in manifest["splits"].values():
        for tar in split["tars"]:
            listed += [(tar["name"], tar["sha256"], tar["bytes"]), (tar["index"], tar["index_sha256"], None)]
        listed += [(split[table]["name"], split[table]["sha256"], None) for table in ("pair_table", "image_table")]
    return listed


def facts(tar: Path) -> list[dict]:
    """What the table of images and the audit need of each image of a whole tar, in order: the SHA-256 of its JPEG, its
    name and its keypoints."""
    found: dict[str, dict] = {}
    with files.open_plain(tar) as file:
        for member in members(tar):
            key, _, extension = member.name.partition(".")
            data = os.pread(file.fileno(), member.size, member.offset_data)
            if extension == "jpg":
                found.setdefault(key, {})["sha256"] = sha256(data)
            else:
                about = json.loads(data)
                found.setdefault(key, {}).update(name=about["name"], keypoints=about["keypoints"])
    return list(found.values())
