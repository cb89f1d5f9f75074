"""manifest.json of a shard folder. No torch and no numpy: the launcher asks the same of it as training does.

Whoever reads one, be it training, the launcher, build or verify, has it from here, and so may rely on the fields of
`_FIELDS`, `_SPLIT` and `_TAR`: they are there and of their kind. Further fields are passed over.
"""

import hashlib
import json
import os
import re
import reprlib
from collections.abc import Callable
from pathlib import Path

from mscgan import files
from mscgan.checks import beside
from mscgan.errors import UserError

SCHEMA = 2  # 1 had no image_table
LARGEST = 64 << 20  # bytes

Kind = tuple[str, Callable[[object], bool]]  # what is expected, in words and as a test


def _whole_number(most: int, least: int = 0) -> Kind:
    return f"a whole number from {least} to {most}", lambda value: type(value) is int and least <= value <= most


def _is_file_name(value: object) -> bool:
    return isinstance(value, str) and not set(value) & set("/\0") and value not in ("", ".", "..") and len(value) < 200


_TEXT: Kind = "a text", lambda value: isinstance(value, str)
_OBJECT: Kind = "an object", lambda value: isinstance(value, dict)
_LIST: Kind = "a list", lambda value: isinstance(value, list)
_NAME: Kind = "the name of a file in this folder", _is_file_name
_SHA256: Kind = "64 hex digits", lambda value: isinstance(value, str) and bool(re.fullmatch("[0-9a-f]{64}", value))
_SIDE = _whole_number(65_535, least=1)  # of a JPEG
_COUNT = _whole_number(2**31 - 1)  # the pair table holds int32

_FIELDS = {"dataset": _TEXT, "height": _SIDE, "width": _SIDE, "splits": _OBJECT}
_SPLIT = {"images": _COUNT, "persons": _COUNT, "pairs": _COUNT, "tars": _LIST}
_TABLES = ("pair_table", "image_table")
_TABLE = {"name": _NAME, "sha256": _SHA256}
_TAR = {
    "name": _NAME,
    "sha256": _SHA256,
    "bytes": _whole_number(2**63 - 1),
    "images": _COUNT,
    "index": _NAME,
    "index_sha256": _SHA256,
}


def parse(text: bytes) -> dict:
    """The manifest that a file's bytes are.

    Raises:
        ValueError: they are none, or of another schema; says in a line which field is wrong, and what was expected.
    """
    try:
        manifest = json.loads(text)
    except RecursionError as error:
        raise ValueError("not JSON (nested too deeply)") from error
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from error
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if type(schema) is not int or schema != SCHEMA:
        raise ValueError(f"has schema {reprlib.repr(schema)}, this version reads {SCHEMA}")
    _check(manifest, _FIELDS, "")
    for split, of in manifest["splits"].items():
        where = f"splits.{reprlib.repr(split)[1:-1]}"
        _check(of, _SPLIT, f"{where}.")
        for table in _TABLES:
            _check(of, {table: _OBJECT}, f"{where}.")
            _check(of[table], _TABLE, f"{where}.{table}.")
        for number, tar in enumerate(of["tars"]):
            _check(tar, _TAR, f"{where}.tars[{number}].")
    return manifest


def read_manifest(root: Path | str, split: str | None = None) -> dict:
    """The manifest of a folder, which has the split where one is named.

    Raises:
        UserError: no folder is given or it is missing, half-written, of another schema, or has no such split.
    """
    if not str(root):
        raise UserError("no shard folder is given; set data.root=DIR, a folder that shards/build.py made")
    root = Path(root)
    path = root / "manifest.json"
    if not os.path.isdir(root):
        advice = beside(root, "manifest.json") or "build one with `python shards/build.py`, or mend data.root"
        raise UserError(f"no shard folder {str(root)!r}; {advice}")
    try:
        manifest = parse(files.read(path, LARGEST))
    except FileNotFoundError as error:
        raise UserError(
            f"{root} has no manifest.json, so it is no whole shard folder; run `python shards/build.py`"
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); mend that, or data.root") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}; build the folder again") from error
    if split is not None and split not in manifest["splits"]:
        raise UserError(f"{root} has no split {split!r}; it has {', '.join(sorted(manifest['splits'])) or 'none'}")
    return manifest


def fingerprint(manifest: dict, split: str) -> str:
    """Hex; of the content of a split alone: moving the folder or naming its source differently leaves it as it is."""
    found = manifest["splits"][split]
    tars, table = [tar["sha256"] for tar in found["tars"]], found["pair_table"]["sha256"]
    return hashlib.sha256(json.dumps([manifest["height"], manifest["width"], tars, table]).encode()).hexdigest()


def check_size(root: Path | str, manifest: dict, height: int, width: int) -> None:
    """Raises UserError unless the images are of this size, the model's."""
    if (manifest["height"], manifest["width"]) != (height, width):
        raise UserError(
            f"{root} holds images of {manifest['height']}x{manifest['width']} (height x width), the model takes "
            f"{height}x{width}; give other shards, or train with data.height={manifest['height']} "
            f"data.width={manifest['width']}"
        )


def _check(found: object, fields: dict[str, Kind], where: str) -> None:
    if not isinstance(found, dict):
        raise ValueError(f"{where.rstrip('.')} is {reprlib.repr(found)}, expected an object")
    for field, (expected, fits) in fields.items():
        if field not in found:
            raise ValueError(f"{where}{field} is missing, expected {expected}")
        if not fits(found[field]):
            raise ValueError(f"{where}{field} is {reprlib.repr(found[field])}, expected {expected}")
