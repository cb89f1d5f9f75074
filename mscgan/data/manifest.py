"""manifest.json of a shard folder. No torch and no numpy: the launcher asks the same of it as training does."""

import json
from pathlib import Path

from mscgan.checks import beside
from mscgan.errors import UserError

SCHEMA = 1
_MAX_BYTES = 64 << 20


def read_manifest(root: Path | str, split: str) -> dict:
    """The manifest of a folder that has the split.

    Raises:
        UserError: no folder is given or it is missing, half-written, of another schema, or has no such split.
    """
    if not str(root):
        raise UserError("no shard folder is given; set data.root=DIR, a folder that shards/build.py made")
    root = Path(root)
    path = root / "manifest.json"
    if not root.is_dir():
        advice = beside(root, "manifest.json") or "build one with `python shards/build.py`, or mend data.root"
        raise UserError(f"no shard folder {str(root)!r}; {advice}")
    if not path.is_file():
        raise UserError(f"{root} has no manifest.json, so it is no whole shard folder; run `python shards/build.py`")
    try:
        with open(path, "rb") as file:
            manifest = json.loads(file.read(_MAX_BYTES))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); mend its permissions, or data.root") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); build the folder again") from error
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != SCHEMA:
        raise UserError(f"{path} has schema {schema}, this version reads {SCHEMA}; build the folder again")
    splits = manifest.get("splits")
    if not isinstance(splits, dict) or not all(isinstance(manifest.get(side), int) for side in ("height", "width")):
        raise UserError(
            f"{path}: a field is missing or of a wrong type (height, width, splits); build the folder again"
        )
    if split not in splits:
        raise UserError(f"{root} has no split {split!r}; it has {', '.join(sorted(splits)) or 'none'}")
    return manifest


def check_size(root: Path | str, manifest: dict, height: int, width: int) -> None:
    """Raises UserError unless the images are of this size, the model's."""
    if (manifest["height"], manifest["width"]) != (height, width):
        raise UserError(
            f"{root} holds images of {manifest['height']}x{manifest['width']} (height x width), the model takes "
            f"{height}x{width}; give other shards, or train with data.height={manifest['height']} "
            f"data.width={manifest['width']}"
        )
