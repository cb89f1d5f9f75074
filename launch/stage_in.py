"""Copies the shards to a disk of the node, once a node, and gives the copy's folder.

    python launch/stage_in.py /shared/market1501 /local/nvme

The first process of the node copies, file by file, and compares each with its checksum in the manifest; the others
wait for its lock. A later job finds the copy and uses it as long as size and time of every file are those of the
verified copy. The folder's name holds the manifest's checksum, so data sets do not collide, and so does the user's id.
launch/kept_copy.py removes a copy that no later job can use; in launch/stage_together.py nodes wait for each other.
"""

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mscgan.data import manifest as manifests
from mscgan.errors import UserError, run
from mscgan.files import open_plain, read, whole, write
from mscgan.paths import a_path

CHUNK = 4 << 20
WAIT_SECONDS = 0.2
VERIFIED = "verified.json"  # {name: [size, mtime_ns]} of the files whose checksum was right
USED = "used"  # locked by those who use the copy (launch/kept_copy.py)


def _nobody(_copied: int) -> None:
    """Who is told of the bytes copied, where nobody waits."""


def stage(root: Path, to: Path | str, tell: Callable[[int], None] = _nobody) -> Path:
    """Makes sure that this node has a verified copy of the shards of `root` below `to`.

    Args:
        root: shard folder with manifest.json.
        to: folder on the node's own disk; variables of the node such as $SLURM_TMPDIR are filled in.
        tell: called now and then with the bytes copied so far.

    Returns:
        The copy: a shard folder with the same files.

    Raises:
        UserError: no manifest, a file that is missing or differs from its checksum, too little space.
    """
    manifest = manifest_bytes(root)
    copy = own_folder(copy_folder(manifest, to))
    with (copy / "lock").open("w") as lock:
        _take(lock, copy, tell)
        for left_over in copy.glob(".*.tmp"):
            left_over.unlink()
        verified = _verified(copy)
        wanted = files(manifest)
        missing = _missing(copy, wanted, verified)
        if missing or not (copy / "manifest.json").exists():
            _copy(root, copy, {name: wanted[name] for name in missing}, verified, tell)
            write(copy / "manifest.json", manifest)
    return copy


def _take(lock: TextIO, copy: Path, tell: Callable[[int], None]) -> None:
    """Waits for the copy's lock; who has it, maybe another job, copies meanwhile, and how far counts as ours."""
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            with suppress(FileNotFoundError):  # one was just renamed
                tell(sum(file.stat().st_size for file in copy.iterdir()))
            time.sleep(WAIT_SECONDS)


def manifest_bytes(root: Path) -> bytes:
    """The manifest as it stands in the shard folder.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return read(Path(root) / "manifest.json", manifests.LARGEST)
    except OSError as error:
        raise UserError(
            f"cannot read {root}/manifest.json ({error.strerror}); data.root must be a folder that shards/build.py "
            "wrote"
        ) from error


def files(manifest: bytes) -> dict[str, str]:
    """File name -> sha256 of all that the manifest lists.

    Raises:
        UserError: it is not a manifest, or a name leads out of the folder.
    """
    found = {}
    try:
        splits = manifests.parse(manifest)["splits"]
    except ValueError as error:
        raise UserError(f"manifest.json: {error}; build the shards again") from error
    for split in splits.values():
        for tar in split["tars"]:
            found[tar["name"]] = tar["sha256"]
            found[tar["index"]] = tar["index_sha256"]
        for table in ("pair_table", "image_table"):
            found[split[table]["name"]] = split[table]["sha256"]
    for name in found:
        if name in ("manifest.json", "lock", USED, VERIFIED):
            raise UserError(f"manifest.json names the file {name!r}; build the shards again")
    return found


def copy_folder(manifest: bytes, to: Path | str) -> Path:
    """Where the copy of these shards is on this node, there already or not.

    Raises:
        UserError: `to` names a variable that this node does not have.
    """
    folder = os.path.expandvars(os.path.expanduser(str(to)))
    if "$" in folder:
        raise UserError(f"data.stage_to={to}: {host()} has no such variable; give a folder of the node's own disk")
    return Path(folder) / f"mscgan-{os.getuid()}-{hashlib.sha256(manifest).hexdigest()[:16]}"


def check(root: Path, to: Path | str) -> None:
    """Looks whether `stage` can start to copy: a manifest, a folder that may be written, space for what is missing.

    Raises:
        UserError: as `stage` would.
    """
    manifest = manifest_bytes(root)
    copy = own_folder(copy_folder(manifest, to))
    _check_space(root, copy, _missing(copy, files(manifest), _verified(copy)))


def _missing(copy: Path, wanted: dict[str, str], verified: dict[str, list[int]]) -> list[str]:
    return [name for name in wanted if not verified.get(name) or verified[name] != _stamp(copy / name)]


def own_folder(folder: Path) -> Path:
    """Makes a folder of this user alone, or looks at the one that is there. Raises UserError: it cannot be."""
    try:
        status = _make(folder)
    except OSError as error:
        raise UserError(
            f"cannot make {folder} on {host()} ({error.strerror}); data.stage_to must be a folder you may write"
        ) from error
    if status.st_uid != os.getuid() or status.st_mode & 0o022 or folder.is_symlink():
        raise UserError(f"{folder} is open to other users of {host()}; remove it or change data.stage_to")
    return folder


def _make(folder: Path) -> os.stat_result:
    """Again where it or the folder above it goes meanwhile, by a job that ends (launch/kept_copy.py)."""
    while True:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            return folder.lstat()
        except FileNotFoundError:
            continue
        except FileExistsError:  # also of a folder that went before it was looked at
            if any(path.exists() and not path.is_dir() for path in (folder, *folder.parents)):
                raise


def _copy(
    root: Path, copy: Path, wanted: dict[str, str], verified: dict[str, list[int]], tell: Callable[[int], None]
) -> None:
    start, copied = time.monotonic(), 0

    def count(size: int) -> None:
        nonlocal copied
        copied += size
        tell(copied)

    size = _check_space(root, copy, wanted)
    try:
        for name, expected in wanted.items():
            with whole(copy / name) as temporary:
                if _copy_file(Path(root) / name, temporary, count) != expected:
                    raise UserError(f"{root}/{name} differs from its checksum in the manifest; build the shards again")
            verified[name] = _stamp(copy / name)
            write(copy / VERIFIED, json.dumps(verified))
    except OSError as error:
        raise UserError(f"cannot copy {root} to {copy}: {error}") from error
    seconds = time.monotonic() - start
    print(f"staged {len(wanted)} files, {size / 1e9:.3f} GB, in {seconds:.1f} s: {copy}", file=sys.stderr, flush=True)


def _check_space(root: Path, copy: Path, names: Iterable[str]) -> int:
    try:
        size = sum((Path(root) / name).stat().st_size for name in names)
    except OSError as error:
        raise UserError(f"{error.filename} is in the manifest but cannot be read ({error.strerror})") from error
    free = shutil.disk_usage(copy).free
    if size > free:
        raise UserError(
            f"{copy.parent} on {host()} has {free / 1e9:.2f} GB free, the shards need {size / 1e9:.2f}; "
            "make room, or leave data.stage_to empty"
        )
    return size


def _copy_file(source: Path, target: Path, count: Callable[[int], None]) -> str:
    sha256 = hashlib.sha256()
    with open_plain(source) as reader, target.open("wb") as writer:
        while chunk := reader.read(CHUNK):
            sha256.update(chunk)
            writer.write(chunk)
            count(len(chunk))
    return sha256.hexdigest()


def _stamp(file: Path) -> list[int]:
    """Size and time of change; empty, which never counts as verified, where there is no file."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _verified(copy: Path) -> dict[str, list[int]]:
    try:
        return json.loads((copy / VERIFIED).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}


def host() -> str:
    """SLURM's name of this node; the host's name elsewhere."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def main() -> int:
    parser = argparse.ArgumentParser(description="Copies shards to a disk of this node and prints the copy's folder.")
    parser.add_argument("root", type=a_path, help="shard folder")
    parser.add_argument("to", help="folder on the node's own disk")
    options = parser.parse_args()
    print(stage(options.root, options.to))
    return 0


if __name__ == "__main__":
    run(main)
