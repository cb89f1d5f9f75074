"""Which checkpoint a start goes on from: the newest that is as it was written. Others are named, never loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from mscgan import checkpoint, dist
from mscgan.errors import UserError, say


@dataclass(frozen=True)
class Start:
    """Where a start goes on from."""

    path: Path | None  # None: at the beginning
    document: dict  # the checkpoint's, empty at the beginning
    tensors: dict[str, Tensor]  # all of the state's, on the CPU; those that a file holds whole are read when used

    @property
    def facts(self) -> dict:
        return self.document.get("state", {})


def choose(run: Path, ranks: dist.Ranks) -> Start:
    """The newest verified checkpoint. Every rank calls it, and each hashes a part of the files.

    Rank 0 says of each one that it passes over what is wrong with it, and sets it aside under another name.

    Raises:
        UserError: there are checkpoints, and none is whole; or they are of another version.
        RuntimeError: one cannot be read now.
    """
    seen = [[str(path) for path in paths] for paths in (checkpoint.all_of(run), checkpoint.set_aside_in(run))]
    names, aside = dist.from_rank_0(seen)  # a shared file system may show ranks different states
    passed = [] if names else [Path(name).name for name in aside]
    for path in map(Path, reversed(names)):
        start, reason = _looked_at(path, ranks)
        if not reason:
            return start
        passed.append(f"{path.name}: {reason}")
        now = dist.on_rank_0(partial(checkpoint.set_aside, path))
        if ranks.rank == 0:
            again = "if this machine misread it, give it its name back"
            say(f"warning: checkpoint {path} is damaged ({reason}); it is now {now}; {again}")
    if passed:
        raise UserError(
            f"no checkpoint of {run} is whole ({'; '.join(passed)}); they are kept under names that begin with "
            f"{checkpoint.DAMAGED}. Put back a copy that you have, or set another run=FOLDER to start anew"
        )
    return Start(None, {}, {})


def _looked_at(path: Path, ranks: dist.Ranks) -> tuple[Start, str]:
    """What a start from there is, and what is wrong with the checkpoint; nothing: an empty string."""
    found: dict = {}

    def verify() -> None:
        found["document"] = document = checkpoint.document(path)
        checkpoint.verify(path, sorted(document["files"])[ranks.rank :: ranks.world], document)

    def load() -> None:
        found["tensors"] = checkpoint.load(path, found["document"])

    # No rank loads from a file before another has verified it.
    reason = _together(verify, path) or _together(load, path)
    return Start(None, {}, {}) if reason else Start(path, found["document"], found["tensors"]), reason


def _together(action: Callable[[], None], path: Path) -> str:
    """Does it on every rank. Returns, on all, what one of them found wrong; nothing: an empty string.

    Raises:
        UserError, RuntimeError: as `choose`, on all ranks.
    """
    kind, reason = "", ""
    try:
        action()
    except checkpoint.Damaged as error:
        kind, reason = "damaged", str(error)
    except UserError as error:
        kind, reason = "mistake", str(error)
    except OSError as error:
        kind, reason = "passing", str(error)
    found = dict(filter(lambda one: one[0], dist.gather([kind, reason])))
    if "mistake" in found:
        raise UserError(found["mistake"])
    if "passing" in found:
        raise RuntimeError(
            f"checkpoint {path} cannot be read now ({found['passing']}); run again, and if that stays so, give the "
            f"folder another name, for example {checkpoint.DAMAGED}{path.name}, to go on from the one before"
        )
    return found.get("damaged", "")
