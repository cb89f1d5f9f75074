"""One checkpoint: a folder that is whole, verified and named, or is not there.

    RUN/checkpoints/pairs-000012345/
        rank-00000.safetensors …   what each rank of the run kept of the state: whole tensors, or parts of them
        generator.safetensors      the average of the networks that make images, as RUN/generator.safetensors has it
        state.json                 the document below: what is in the files, and the facts that training goes on from

The ranks write into a folder under another name (mscgan/saving.py). The document comes last, then the folder gets its
name by a rename. A kill at any moment leaves the earlier checkpoints as they were. A file is read back from where it
was written for its digest, and hashed again before anything of it is loaded. Nothing here is ever unpickled.

The document:
    schema, version   of this format, and of the code that wrote it
    pairs             the position; it is in the folder's name and in the facts too, and all three must agree
    state             the facts, as mscgan/train.py gives them
    files             {name: {"bytes", "sha256"}}
    tensors           {name: shape}
    sha256            of the document itself without this line, so that an edited one is known

A tensor of which several ranks hold parts is flat in their files, under NAME@START with START its first element.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mscgan import files
from mscgan.errors import UserError
from mscgan.pieces import Piece, not_finite
from mscgan.schedule import SCHEMA

NAME = re.compile(r"pairs-(\d{9,})")
OLDER = re.compile(r"images-\d{9,}")
WRITING, REMOVING, REPLACED, DAMAGED = "partial-", "removing-", "replaced-", "damaged-"  # start other folders' names
GENERATOR, DOCUMENT = "generator.safetensors", "state.json"


class Damaged(Exception):
    """A checkpoint is not what was written, or not wholly. The message says what is wrong with it."""


def folder(run: Path | str, pairs: int) -> Path:
    return Path(run) / "checkpoints" / f"pairs-{pairs:09d}"


def position(path: Path) -> int:
    """Pairs consumed, by the folder's name."""
    return int(path.name.removeprefix("pairs-"))


def all_of(run: Path | str) -> list[Path]:
    """The folders with a checkpoint's name, the oldest first; whether they are whole is not looked at.

    Raises:
        UserError: there are only such as an older version wrote.
    """
    inside = Path(run) / "checkpoints"
    names = [path for path in inside.iterdir() if path.is_dir()] if inside.is_dir() else []
    found = sorted((path for path in names if NAME.fullmatch(path.name)), key=position)
    older = sorted(path for path in names if OLDER.fullmatch(path.name))
    if older and not found:
        raise UserError(_older(older[-1]))
    return found


def newest(run: Path | str) -> Path | None:
    """The folder with the highest position. For what people are told; training goes on from `recovery.choose`'s."""
    return next(reversed(all_of(run)), None)


def write(
    partial: Path, rank: int, pieces: dict[str, Piece], generator: dict[str, Tensor] | None, stage: str, seen: int
) -> dict:
    """Writes a rank's share into the folder, to the disk. Returns what `publish` wants to hear of it.

    Args:
        generator: the average of the networks that make images, from one rank; else None.
        stage: in which it was made, for those who load it.
        seen: pairs that this stage had trained on, for them too.

    Raises:
        OSError, SafetensorError: the disk is full or may not be written.
    """
    partial.mkdir(parents=True, exist_ok=True)
    contents = {f"rank-{rank:05d}.safetensors": {piece.key(name): piece.tensor for name, piece in pieces.items()}}
    if generator is not None:
        contents[GENERATOR] = generator
    size = sum(tensor.nbytes for tensors in contents.values() for tensor in tensors.values())
    if size > (free := shutil.disk_usage(partial).free):
        raise OSError(errno.ENOSPC, f"{size:,} bytes are to be written and {free:,} are free", str(partial))
    written = {}
    for name, tensors in contents.items():
        # One entry: several have another order in each file, and the same weights then other bytes.
        save_file(_storable(tensors), partial / name, metadata={"stage": f"{stage}:{seen}"})
        _flush(partial / name)
        _compare(partial / name, tensors)
        written[name] = {"bytes": (partial / name).stat().st_size, "sha256": _digest(partial / name)}
    shapes = {name: piece.shape for name, piece in pieces.items()}
    shapes |= {f"average.{name}": list(tensor.shape) for name, tensor in (generator or {}).items()}
    return {"files": written, "tensors": shapes}


def publish(partial: Path, pairs: int, facts: dict, shares: Iterable[dict], keep: int) -> list[str]:
    """Gives a folder that all ranks have written their share into the document and its name, then removes all but the
    `keep` newest up to it. The generator goes to RUN/generator.safetensors first, so that a checkpoint that is there
    has nothing left to export. One at the same position is replaced.

    Returns:
        Lines that people should read: what could not be removed.

    Raises:
        OSError: the disk is full or may not be written.
    """
    final = folder(partial.parents[1], pairs)
    document: dict = {
        "schema": SCHEMA,
        "version": version("mscgan"),
        "pairs": pairs,
        "state": facts,
        "files": {},
        "tensors": {},
    }
    for share in shares:
        document["files"] |= share["files"]
        document["tensors"] |= share["tensors"]
    for name, entry in document["files"].items():  # before anything older goes
        if (found := (partial / name).stat().st_size) != entry["bytes"]:
            raise OSError(errno.EIO, f"{found:,} bytes of {entry['bytes']:,} are there", str(partial / name))
    document["sha256"] = _document_digest(document)
    (partial / DOCUMENT).write_text(json.dumps(document, indent=1) + "\n")
    _flush(partial / DOCUMENT)
    _flush(partial)
    with files.whole(partial.parents[1] / GENERATOR) as temporary:
        shutil.copyfile(partial / GENERATOR, temporary)
        _flush(temporary)
    old = [final.rename(final.with_name(REPLACED + final.name))] if final.exists() else []
    partial.rename(final)
    _flush(final.parent)
    _flush(final.parents[1])
    # Only those up to this one: after going back to an older checkpoint, higher ones are not newer.
    old += [path for path in all_of(final.parents[1]) if position(path) <= pairs][:-keep]
    return [warning for path in old if (warning := _remove(path))]


def document(path: Path) -> dict:
    """The document of a checkpoint, checked against itself and against the folder's name.

    Raises:
        Damaged: it is not there, or does not agree.
        UserError: another version of this format.
        OSError: it cannot be read now.
    """
    try:
        _regular(path / DOCUMENT)
        found = json.loads((path / DOCUMENT).read_bytes())
        schema, digest = found["schema"], found.get("sha256")
        intact = digest == _document_digest(found)
    except OSError as error:
        raise _unreadable(error, DOCUMENT) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Damaged(f"{DOCUMENT} is no document of a checkpoint ({type(error).__name__}: {error})") from error
    if schema != SCHEMA and (intact or digest is None) and isinstance(schema, int):
        raise UserError(_older(path, schema))
    if not intact:
        raise Damaged(f"{DOCUMENT} is not as it was written: its sha256 is another")
    if not position(path) == found["pairs"] == found["state"].get("pairs"):
        raise Damaged(f"{DOCUMENT} is of {found['pairs']} pairs, and its folder's name of {position(path)}")
    return found


def verify(path: Path, names: Iterable[str], found: dict) -> None:
    """Reads files of a checkpoint and compares their size and digest with the document's; weights must be finite.

    Raises:
        Damaged: a file is not there, not as it was written, or holds a number that is not finite.
        OSError: it cannot be read now.
    """
    for name in names:
        expected = found["files"][name]
        try:
            size = _regular(path / name)
            if size != expected["bytes"]:
                raise Damaged(f"{name} has {size:,} bytes of {expected['bytes']:,}")
            if _digest(path / name) != expected["sha256"]:
                raise Damaged(f"{name} is not as it was written: its sha256 is another")
            tensors = load_file(path / name)
        except OSError as error:
            raise _unreadable(error, name) from error
        except SafetensorError as error:
            raise Damaged(f"{name} cannot be read ({error})") from error
        if bad := not_finite(tensors):
            raise Damaged(f"{bad} in {name} is not finite")


def load(path: Path, found: dict) -> dict[str, Tensor]:
    """All tensors of a verified checkpoint, on the CPU, whole; where a file holds them whole, read only when used.

    Raises:
        Damaged: a tensor is not there, or not wholly.
        OSError: it cannot be read now.
    """
    try:
        shares = [load_file(path / name) for name in found["files"] if name != GENERATOR]
        tensors = {f"average.{name}": tensor for name, tensor in load_file(path / GENERATOR).items()}
    except OSError as error:
        raise _unreadable(error, path.name) from error
    return tensors | join(shares, {name: shape for name, shape in found["tensors"].items() if name not in tensors})


def join(shares: Iterable[dict[str, Tensor]], shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Whole tensors from the pieces that ranks hold, by the keys that they have in files.

    Raises:
        Damaged: a part is not there.
    """
    tensors: dict[str, Tensor] = {}
    parts: dict[str, dict[int, Tensor]] = {}
    for share in shares:
        for key, tensor in share.items():
            name, at, start = key.rpartition("@")
            if at:
                parts.setdefault(name, {})[int(start)] = tensor
            else:
                tensors[key] = tensor
    for name, found in parts.items():
        starts = sorted(found)
        ends = [0] + [start + found[start].numel() for start in starts]
        if starts != ends[:-1]:
            raise Damaged(f"of {name} the part from element {min(set(ends[:-1]) - set(starts))} on is not there")
        tensors[name] = torch.cat([found[start] for start in starts])
    if missing := sorted(shapes.keys() ^ tensors.keys()):
        raise Damaged(f"{missing[0]} is in the files or in the document, not in both")
    for name, shape in shapes.items():
        if tensors[name].numel() != torch.Size(shape).numel():
            raise Damaged(f"{name} has {tensors[name].numel()} elements of {torch.Size(shape).numel()}")
        tensors[name] = tensors[name].view(shape)
    return tensors


def set_aside(path: Path) -> Path:
    """Takes a damaged checkpoint's name from it, so that it counts as none. What is in it stays."""
    target = path.with_name(DAMAGED + path.name)
    number = 1
    while target.exists():
        number += 1
        target = path.with_name(f"{DAMAGED}{path.name}-{number}")
    path.rename(target)
    return target


def export_again(run: Path | str, found: dict) -> None:
    """Puts a verified checkpoint's generator to RUN/generator.safetensors where that is not there, or another."""
    path, there = folder(run, found["pairs"]), Path(run) / GENERATOR
    if not there.is_file() or _digest(there) != found["files"][GENERATOR]["sha256"]:
        with files.whole(there) as temporary:
            shutil.copyfile(path / GENERATOR, temporary)


def set_aside_in(run: Path | str) -> list[Path]:
    return sorted((Path(run) / "checkpoints").glob(f"{DAMAGED}*"))


def sweep(run: Path | str) -> None:
    """Removes what a killed process left half written; only the run's owner may.

    Raises:
        OSError: it may not be removed.
    """
    inside = Path(run) / "checkpoints"
    for path in inside.glob(f"{REPLACED}pairs-*"):  # killed between the two renames of `publish`
        if not (final := path.with_name(path.name.removeprefix(REPLACED))).exists():
            path.rename(final)
    for prefix in (WRITING, REMOVING, REPLACED):
        for path in inside.glob(f"{prefix}*"):
            shutil.rmtree(path)
    for path in Path(run).glob(".*.tmp"):  # of files.whole
        path.unlink()


def _older(path: Path, schema: int | None = None) -> str:
    what = "an older version" if schema is None else f"schema {schema}"
    return (
        f"checkpoint {path} is of {what}, and this version reads schema {SCHEMA}; use the version that wrote it, or "
        "set another run=FOLDER"
    )


def _unreadable(error: OSError, name: str) -> Exception:
    """What a failed read means: a damaged checkpoint where there is no such file, else the failure itself. It may pass,
    or be mended, as a lost right to read can, and says nothing about what was written."""
    return Damaged(f"{name} is not there") if error.errno in (errno.ENOENT, errno.ENOTDIR) else error


def _remove(path: Path) -> str:
    """Under another name first, so that a kill half-way leaves nothing that looks like a checkpoint. A warning."""
    doomed = path.with_name(REMOVING + path.name)
    try:
        path.rename(doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        return f"the old checkpoint {path} could not be removed ({error}); training goes on"
    return ""


def _compare(path: Path, tensors: dict[str, Tensor]) -> None:
    """Reads a file that was written. The digest would only say what the disk gives back, not what it was given."""
    found = load_file(path)
    for name, tensor in tensors.items():
        if not torch.equal(found[name], tensor.detach()):
            raise OSError(errno.EIO, f"{name} reads back as something else than was written", str(path))


def _regular(path: Path) -> int:
    """A file's size. Of what is no file (opening a pipe would wait for ever) it raises Damaged."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise Damaged(f"{path.name} is no file")
    return found.st_size


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        with contextlib.suppress(AttributeError, OSError):  # a hint to the kernel, which not every system takes
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _document_digest(document: dict) -> str:
    content = {key: value for key, value in document.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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


if __name__ == "__main__":
    from mscgan.errors import run
    from mscgan.inspection import main

    run(main)
