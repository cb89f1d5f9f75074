"""Whose a folder is: the lock of the build that writes to it, and whether it has another build already."""

import fcntl
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mscgan import files
from mscgan.data.manifest import LARGEST as LARGEST_MANIFEST
from mscgan.errors import UserError
from shards.finished import damage, read_manifest


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Makes the folder for a build, if it holds nothing else, and keeps a second one out of it."""
    state = out / ".build"
    ours = (state / "plan.json").exists() or (out / "manifest.json").exists()
    try:
        if out.exists() and not ours and any(path != state for path in out.iterdir()):
            raise UserError(
                f"{out} holds other files and no shards, as it has no manifest.json; give --out a new or empty folder"
            )
        state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {out}: {error.strerror}; give --out another") from error
    with (state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another build is writing to {out}; wait for it, or give another --out") from error
        yield


def is_built(out: Path, source: dict, found: dict) -> bool:
    """Whether `out` has the finished build of such a plan, whole. To be asked before long work that a plan needs.

    source, found: the plan's source and files, or a part of them.

    Raises:
        UserError: it has another build, or a manifest that says nothing.
    """
    manifest = read_manifest(out) if (out / "manifest.json").exists() else None
    if manifest is None and not (out / ".build/plan.json").exists():
        return False
    theirs = _built_from(read_plan(out) if manifest is None else manifest)
    other = [name for name in source | found if theirs.get(name) != (source | found)[name]]
    _refuse(out, other, found, finished=manifest is not None)
    return manifest is not None and not damage(out, manifest)


def refuse_other(out: Path, written: object, source: dict, of_files: Iterable[str], finished: bool) -> None:
    """UserError unless the manifest or plan.json names this source, down to the files if the build is finished.

    of_files: which of its names are of the files that it is made from.
    """
    found = _built_from(written)
    other = [name for name in found.keys() | source.keys() if found.get(name) != source.get(name)]
    _refuse(out, other, of_files, finished)


def read_plan(out: Path) -> object:
    """What plan.json of a build that was stopped says; None where it is damaged."""
    try:
        return json.loads(files.read(out / ".build/plan.json", LARGEST_MANIFEST))
    except (OSError, ValueError, RecursionError):
        return None


def _built_from(written: object) -> dict:
    """The source that a manifest or plan.json names; {} where it names none."""
    source = written.get("source") if isinstance(written, dict) else None
    return source if isinstance(source, dict) else {}


def _refuse(out: Path, other: list[str], of_files: Iterable[str], finished: bool) -> None:
    """UserError where a build has another source, or is finished and made of other files. other: names of what differs,
    of_files: which of them are of the files."""
    asked = sorted(set(other) - set(of_files))
    advice = "give --out a new folder, or remove that one first"
    if asked:
        raise UserError(f"{out} holds shards of another configuration ({', '.join(asked)}); {advice}")
    if other and finished:
        raise UserError(
            f"the pictures are not those any more that {out} was built from, or an older version built it; {advice}"
        )
