"""Who hangs: one sentence from what the ranks of an attempt wrote of their last collectives (mscgan/heartbeat.py).

A rank that does not enter a collective stops all others inside it. What each rank entered, and what it is still in,
tells which rank is missing where. Standard library only: it also runs in the batch script of a job.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mscgan import heartbeat

RECENT_SECONDS = 60.0  # a rank answers the watchdog within seconds; an older file tells of another moment


@dataclass
class Wait:
    """A collective that some ranks are in and cannot leave."""

    title: str  # all_reduce #123 of the default group (gloo)
    since: float  # when the first of them entered it, in unix seconds
    ranks: list[int]  # that wait in it
    missing: list[int]  # that have not entered it
    mute: list[int]  # that ought to be in it, but said nothing


def collect(run: Path | str, attempt: str, world: int, into: Path) -> tuple[dict[int, dict], list[int]]:
    """What the ranks of an attempt that hung said, and which of them were stopped. A rank is absent that said nothing
    then. The files move to the folder `into`, for people to read: the next attempt's owner sweeps.

    attempt: heartbeat.attempt_name of it.
    """
    told, stopped = {}, []
    for rank in range(world):
        if text := _take(heartbeat.collectives_path(run, rank, attempt), into):
            with contextlib.suppress(ValueError):  # not whole
                told[rank] = json.loads(text)
        if _take(heartbeat.path(run, rank, attempt).with_suffix(".stopped"), into) is not None:
            stopped.append(rank)
    return told, stopped


def _take(file: Path, into: Path) -> str | None:
    """The text of a file written when the watchdogs' mark was; None where there is none. It moves to `into`."""
    try:
        recent = abs(file.stat().st_mtime - file.with_name("hung").stat().st_mtime) <= RECENT_SECONDS
        os.replace(file, into / file.name)
        return (into / file.name).read_text() if recent else None
    except OSError:
        return None


def explain(told: dict[int, dict], world: int, stopped: Iterable[int] = ()) -> str:
    """Which rank never entered which collective, or what else the records say; one sentence.

    Args:
        told: what each rank said of itself, as `collect` gives it.
        world: ranks of the attempt.
        stopped: ranks whose process was stopped.
    """

    def named(rank: int) -> str:
        return f"rank {rank} on {told[rank]['host']}" if rank in told else f"rank {rank}"

    told_of = "".join(f"{named(rank)} was stopped; " for rank in stopped)
    waits = _waits(told, world)
    waiting = {rank for wait in waits for rank in wait.ranks}
    for wait in waits:
        if culprits := [rank for rank in wait.missing if rank not in waiting]:
            return f"{told_of}{_list(culprits, named)} never entered {wait.title}, in which {_wait(wait.ranks)}"
    for wait in waits:
        if wait.mute:
            return f"{told_of}{_list(wait.mute, named)} did not say where it is; {_wait(wait.ranks)} in {wait.title}"
    if any(wait.missing for wait in waits):
        return f"{told_of}the ranks wait in different collectives: " + ", ".join(
            f"{_list(wait.ranks, lambda rank: f'rank {rank}')} in {wait.title}" for wait in waits
        )
    if waits:
        where = "" if told_of else ": the network between them, or one that was stopped there"
        return f"{told_of}all ranks entered {waits[0].title} and {_wait(waits[0].ranks)} in it{where}"
    return f"{told_of}no rank told of a collective that it waits in; the stacks in the ranks' logs say where each is"


def culprits(told: dict[int, dict], world: int, stopped: Iterable[int] = ()) -> list[int]:
    """The ranks that `explain` names as those for which the others wait; none where it names none."""
    waits = _waits(told, world)
    waiting = {rank for wait in waits for rank in wait.ranks}
    for wait in waits:
        if missing := [rank for rank in wait.missing if rank not in waiting]:
            return sorted({*stopped, *missing})
    mute = next((wait.mute for wait in waits if wait.mute), [])
    return sorted({*stopped, *mute})


def _waits(told: dict[int, dict], world: int) -> list[Wait]:
    """The first unfinished collective of each group and backend, by when it began."""
    # A stopped process was woken to be asked, after all others, and may have gone on before it answered.
    until = min((one["unix"] for one in told.values()), default=0.0)
    unfinished: dict[tuple[str, str], list[tuple[int, dict]]] = {}
    for rank, of_rank in told.items():
        for one in of_rank["collectives"]:
            if not one["over"] and one["unix"] <= until:
                unfinished.setdefault((one["group"], one["backend"]), []).append((rank, one))
    waits = []
    for (group, backend), those in unfinished.items():
        number = min(one["number"] for _, one in those)
        first = [(rank, one) for rank, one in those if one["number"] == number]
        members = told[first[0][0]]["groups"].get(group, range(world))
        behind = {rank for rank in members if rank in told and _entered(told[rank], group, backend, until) < number}
        where = f"#{number} of {'the default group' if group == '0' else f'group {group}'} ({backend})"
        for kind in dict.fromkeys(one["kind"] for _, one in first):
            ranks = {rank for rank, one in first if one["kind"] == kind}
            # A rank that is in a collective of another kind at this place has not entered this one.
            missing = behind | {rank for rank, _ in first} - ranks
            mute = [rank for rank in members if rank not in told]
            since = min(one["unix"] for _, one in first)
            waits.append(Wait(f"{kind} {where}", since, sorted(ranks), sorted(missing), mute))
    return sorted(waits, key=lambda wait: wait.since)


def _entered(told: dict, group: str, backend: str, until: float) -> int:
    """The number of the last collective of a group that a rank entered; 0 for none."""
    own = [one for one in told["collectives"] if (one["group"], one["backend"]) == (group, backend)]
    if not own:
        return told["entered"].get(f"{group} {backend}", 0)
    return max((one["number"] for one in own if one["unix"] <= until), default=own[0]["number"] - 1)


def _list(ranks: list[int], named: Callable[[int], str]) -> str:
    return ", ".join(map(named, ranks))


def _wait(ranks: list[int]) -> str:
    return f"rank {ranks[0]} waits" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))} wait"
