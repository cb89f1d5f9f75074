"""One checkpoint: named tensors and JSON facts in a folder that is either complete or not there.

    RUN/checkpoints/pairs-000012345/{tensors.safetensors, state.json}

Rank 0 writes into a folder under another name, flushes files and folders to the disk, and renames it once all ranks
have come that far. A kill at any moment leaves the earlier checkpoints as they were, and at most a folder under the
other name, which the next save removes. Nothing here is ever unpickled.
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mscgan import dist
from mscgan.errors import UserError
from mscgan.schedule import SCHEMA

COMPLETE = re.compile(r"pairs-(\d{9,})")
OLDER = re.compile(r"images-\d{9,}")
ADVICE = "delete this folder to go on from the one before it"
PARTIAL = "partial-"  # starts the names of folders that are being written or removed
# Failures that the user can mend; others may pass by themselves, and the launcher tries again.
MENDABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


def save(
    run: Path,
    pairs: int,
    tensors: dict[str, Tensor],
    state: dict,
    keep: int,
    ranks: dist.Ranks,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Writes the checkpoint at position `pairs`, then removes all but the `keep` newest up to it. Every rank calls it.

    On return the checkpoint is complete on every rank. One at the same position is replaced.

    Args:
        tensors: any names; rank 0's are written.
        state: what JSON can hold; rank 0's is written.
        check: called on rank 0 before the checkpoint gets its name; raises UserError where it is not to.

    Raises:
        UserError: by `check`, or the disk is full or may not be written; the earlier checkpoints are untouched.
        RuntimeError: another failure of the disk.
    """
    folder = Path(run) / "checkpoints"
    partial = folder / f"{PARTIAL}pairs-{pairs:09d}"
    final = folder / f"pairs-{pairs:09d}"
    _on_rank_0(lambda: _write(partial, pairs, tensors, state), final, ranks)

    def publish() -> None:
        check()
        _publish(partial, final, keep)

    _on_rank_0(publish, final, ranks)


def newest(run: Path) -> Path | None:
    """The complete checkpoint of the run with the highest position.

    Raises:
        UserError: it has only such as an older version wrote.
    """
    folder = Path(run) / "checkpoints"
    found = _complete(folder)
    older = sorted(path for path in folder.glob("*") if OLDER.fullmatch(path.name))
    if older and not found:
        raise UserError(
            f"checkpoint {older[-1]} is of an older version than this one, which writes schema {SCHEMA}; use the "
            "version that wrote it, or another run=FOLDER"
        )
    return found[-1] if found else None


def load(path: Path) -> tuple[dict[str, Tensor], dict]:
    """The tensors, on the CPU, and the state that `save` was given.

    Raises:
        UserError: the folder is not a whole checkpoint of this version.
    """
    document = _document(path)
    try:
        tensors = load_file(path / "tensors.safetensors")
    except (OSError, SafetensorError) as error:
        raise UserError(f"checkpoint {path} cannot be read ({error}); {ADVICE}") from error
    if document["tensors"] != len(tensors):
        raise UserError(f"checkpoint {path} holds {len(tensors)} tensors of {document['tensors']}; {ADVICE}")
    return tensors, document["state"]


def facts(path: Path) -> dict:
    """The state that `save` was given, without the tensors. Raises as `load` does."""
    return _document(path)["state"]


def _document(path: Path) -> dict:
    try:
        document = json.loads((path / "state.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"checkpoint {path} cannot be read ({error}); {ADVICE}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise UserError(f"checkpoint {path} is not of schema {SCHEMA}; use the version that wrote it, or {ADVICE}")
    return document


def _complete(folder: Path) -> list[Path]:
    """Complete checkpoints, the oldest first."""
    if not folder.is_dir():
        return []
    files = ("tensors.safetensors", "state.json")
    found = [path for path in folder.iterdir() if COMPLETE.fullmatch(path.name)]
    return sorted((path for path in found if all((path / file).is_file() for file in files)), key=_pairs)


def _pairs(path: Path) -> int:
    return int(path.name.removeprefix("pairs-"))


def _write(partial: Path, pairs: int, tensors: dict[str, Tensor], state: dict) -> None:
    partial.parent.mkdir(parents=True, exist_ok=True)
    for left_over in partial.parent.glob(f"{PARTIAL}*"):
        shutil.rmtree(left_over)
    partial.mkdir()
    document = {"schema": SCHEMA, "pairs": pairs, "tensors": len(tensors), "state": state}
    try:
        save_file(_storable(tensors), partial / "tensors.safetensors")
        (partial / "state.json").write_text(json.dumps(document, indent=1) + "\n")
        for path in (partial / "tensors.safetensors", partial / "state.json", partial):
            _flush(path)
    except (OSError, SafetensorError):
        shutil.rmtree(partial, ignore_errors=True)  # on a full disk the room is needed
        raise


def _publish(partial: Path, final: Path, keep: int) -> None:
    if final.exists():
        _remove(final)
    partial.rename(final)
    _flush(final.parent)
    _flush(final.parents[1])
    # Only those up to this one: after going back to an older checkpoint, higher ones are not newer.
    upto = [path for path in _complete(final.parent) if _pairs(path) <= _pairs(final)]
    for path in upto[:-keep]:
        _remove(path)


def _remove(path: Path) -> None:
    """Under another name first, so that a kill half-way leaves nothing that looks complete."""
    doomed = path.with_name(f"{PARTIAL}removed-{path.name}")
    path.rename(doomed)
    shutil.rmtree(doomed)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _storable(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """safetensors takes contiguous tensors that share no memory; copies only where that is not so."""
    storable, seen = {}, set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        shared = storage.data_ptr() in seen or storage.nbytes() != tensor.numel() * tensor.element_size()
        storable[name] = tensor.clone() if shared else tensor
        seen.add(storage.data_ptr())
    return storable


def _on_rank_0(action: Callable[[], None], final: Path, ranks: dist.Ranks) -> None:
    """Runs `action` on rank 0 while the others wait; if it fails, every rank raises the same error."""
    failure = None
    if ranks.rank == 0:
        try:
            action()
        except UserError as error:
            failure = {"mendable": True, "message": str(error)}
        except (OSError, SafetensorError) as error:
            code = getattr(error, "errno", None) or int((re.findall(r"os error (\d+)", str(error)) or [0])[0])
            failure = {
                "mendable": code in MENDABLE,
                "message": f"checkpoint {final} could not be written ({error}); the newest complete one is "
                f"{newest(final.parents[1]) or 'none'}; make room, or let this user write there, and run again",
            }
    if ranks.world > 1:
        failure = dist.from_rank_0(failure)
    if failure:
        raise UserError(failure["message"]) if failure["mendable"] else RuntimeError(failure["message"])
