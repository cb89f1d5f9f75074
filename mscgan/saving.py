"""Checkpoints while training goes on: the loop stops for the copy of a rank's share alone.

    loop      … | copy | step | step | step | … | step |  publish agreed | step | …
    thread             | write, flush, hash          |                 | rename (rank 0) |

Each rank copies its share of the state to the CPU and goes on; a thread writes it. The ranks learn at the end of a
step, in the one collective that each step has, that all have written. Then rank 0's thread gives the folder its name.
Every collective is in the loop's thread. Until the last one has its name, or has failed, no other save begins.
"""

import re
import secrets
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Self

from safetensors import SafetensorError
from torch import Tensor

from mscgan import checkpoint, dist
from mscgan.errors import PASSING, UserError, say
from mscgan.state import Share, State

TRIES = 3  # saves that may fail one after the other
LAST_TRIES = 12  # of the last save, after which nothing is left that could be lost in the meantime
PAUSE_SECONDS = 60.0  # from one that failed to the next try; training goes on meanwhile
LAST_PAUSE_SECONDS = 5.0  # the same where training has ended and only the save is left


class Diverged(RuntimeError):
    """A loss, a weight or a moment is NaN or infinite. Every rank finds the same."""


class Saver:
    """Writes the checkpoints of one start of a run. Every rank has one and calls the same methods after the same step.

    Args:
        run: the run's folder.
        pairs: position of the checkpoint that this start goes on from, 0 without one.
        every: pairs between two checkpoints.
        minutes: between two checkpoints; the later of the two counts.
        keep: checkpoints kept.
        owned: called by rank 0 before a checkpoint gets its name; raises UserError if the run is another's now.
    """

    def __init__(
        self, run: Path, ranks: dist.Ranks, pairs: int, every: int, minutes: float, keep: int, owned: Callable[[], None]
    ):
        self._run, self._ranks, self._every, self._seconds, self._keep = run, ranks, every, 60 * minutes, keep
        self._owned = owned
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._work: Future = Future()  # what this rank's thread does, or did last
        self._work.set_result(None)
        self._kept: dict[str, Tensor] = {}  # the memory of the last share, for the next
        self._phase = ""  # writing | publishing; empty: no save is under way
        self._facts: dict = {}  # of the one under way
        self._begun = self._published = pairs
        self._failures, self._tries, self._again = 0, TRIES, False
        self._token = dist.from_rank_0(secrets.token_hex(4))  # two owners do not write into one folder
        self._not_before = time.monotonic() + self._seconds
        self.leaves = False  # whether rank 0 is asked to end after the next save, as all ranks know since the last step

    def meet(self, pairs: int, signalled: bool, asked: bool = False, leaves: bool = False) -> tuple[bool, bool]:
        """Once a step, in its only collective: whether a rank was signalled, and whether a save should begin.

        Args:
            asked: of rank 0: to save now, whatever pairs and minutes say.
            leaves: of rank 0: for `self.leaves` of all.

        Raises:
            UserError: saves failed too often for a reason that people can mend, or the run is another's now.
            RuntimeError: too often for another reason.
        """
        working = not self._work.done()
        failed = not working and self._work.exception() is not None
        due = self._again or pairs // self._every > self._begun // self._every
        due = due and time.monotonic() >= self._not_before
        wanted = self._ranks.rank == 0 and (due or asked)  # rank 0's clock decides
        signalled, working, failed, wanted, self.leaves = dist.all_any(signalled, working, failed, wanted, leaves)
        if self._phase and not working:
            self._advance(failed)
        return signalled, wanted and not self._phase

    def save(self, state: State, own: dict, last: bool) -> None:
        """Begins a checkpoint of `state`, once an earlier one is over.

        Args:
            own: the loop's facts beside the state's; "pairs" is the position.
            last: nothing comes after it, so return only when it is written.

        Raises:
            Diverged: it would hold numbers that are not finite.
            UserError, RuntimeError: as `meet`.
        """
        self.settle()
        if last:
            self._failures, self._tries = 0, LAST_TRIES
        share = state.share(self._ranks.rank, self._ranks.world, self._kept)
        if bad := dist.first_said(share.bad):
            raise Diverged(f"{bad} is not finite after {own['pairs']} pairs")
        self._begin(share, own)
        while last:
            self.settle()
            if self._published == own["pairs"]:
                return
            time.sleep(LAST_PAUSE_SECONDS)
            self._begin(share, own)

    def settle(self) -> None:
        """Returns when no save is under way. Raises as `meet`."""
        while self._phase:
            wait([self._work])
            self.meet(0, False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is Diverged:  # all ranks come here, and what is being written is from before
            self.settle()
        self._pool.shutdown()

    def _begin(self, share: Share, own: dict) -> None:
        self._begun, self._not_before = own["pairs"], time.monotonic() + self._seconds
        self._facts, self._phase, self._again = share.facts | own, "writing", False
        generator = share.generator if self._ranks.rank == 0 else None
        self._work = self._pool.submit(
            checkpoint.write, self._partial(), self._ranks.rank, share.pieces, generator, share.facts["stage"],
            share.facts["seen"],
        )  # fmt: skip

    def _advance(self, failed: bool) -> None:
        """What follows when no rank's thread is at work any more."""
        if failed:
            self._fail()
        elif self._phase == "writing":
            shares = dist.gather(self._work.result())
            self._phase = "publishing"
            self._work = self._pool.submit(self._publish if self._ranks.rank == 0 else list, shares)
        else:
            for line in self._work.result() if self._ranks.rank == 0 else []:
                say(f"warning: {line}")
            self._phase = ""
            self._published, self._failures = self._begun, 0

    def _publish(self, shares: list[dict]) -> list[str]:
        self._owned()
        return checkpoint.publish(self._partial(), self._begun, self._facts, shares, self._keep)

    def _fail(self) -> None:
        """Says that a save failed and why, and has it tried again; after TRIES all ranks raise alike."""
        found = [reason for reason in dist.gather(_reason(self._work)) if reason]
        kind, reason = min(found, key=lambda one: ("bug", "other's", "mendable", "passing").index(one[0]))
        self._failures += 1
        self._phase = ""
        self._again, self._not_before = True, time.monotonic() + PAUSE_SECONDS
        if kind == "bug":
            raise RuntimeError(f"writing a checkpoint failed: {reason}") from self._work.exception()
        if kind == "other's":
            raise UserError(reason)
        if self._ranks.rank == 0:
            shutil.rmtree(self._partial(), ignore_errors=True)  # on a full disk the room is needed
        dist.barrier()  # or another rank would begin anew in a folder that is still being removed
        newest = checkpoint.folder(self._run, self._published) if self._published else "none"
        text = (
            f"checkpoint {checkpoint.folder(self._run, self._facts['pairs'])} could not be written ({reason}); the "
            f"newest complete one is {newest}"
        )
        if self._failures < self._tries:
            if self._ranks.rank == 0:
                say(f"warning: {text}; it is tried again (failure {self._failures} of {self._tries})")
        elif kind == "mendable":
            raise UserError(f"{text}; {self._tries} tries failed: make room, or let this user write there; run again")
        else:
            raise RuntimeError(f"{text}; {self._tries} tries failed")

    def _partial(self) -> Path:
        final = checkpoint.folder(self._run, self._facts["pairs"])
        return final.with_name(f"{checkpoint.WRITING}{self._token}-{final.name}")


def _reason(work: Future) -> list[str] | None:
    """Kind and text of what a thread's work failed with. What is neither the disk's nor the owner's is a bug."""
    error = work.exception()
    if error is None:
        return None
    if isinstance(error, UserError):
        return ["other's", str(error)]
    if not isinstance(error, OSError | SafetensorError):
        return ["bug", repr(error)]
    number = getattr(error, "errno", None) or int((re.findall(r"os error (\d+)", str(error)) or ["0"])[0])
    return ["passing" if number in PASSING else "mendable", str(error)]
