"""Which rank, and which node, the failure of an attempt is laid to. Standard library only: the batch script asks."""

from collections import Counter
from dataclasses import dataclass, field

from launch import hang, runs
from mscgan import heartbeat
from mscgan.errors import AGAIN, DONE, STOPPED

FAILURES = ("crash", "mistake", "bad node")  # and "hung"
TWICE = 2  # failures of one node after which the job keeps away from it


@dataclass
class Blame:
    """What attempts.jsonl keeps of a failure; empty where nobody can tell, and where there was none."""

    failed: dict = field(default_factory=dict)  # {"rank": 3, "node": "n2", "code": 137}: the one that failed first
    nodes: list[str] = field(default_factory=list)  # of all that failed or hung; outside SLURM none has a name
    hang: str = ""  # who never entered which collective

    def __str__(self) -> str:
        """A sentence for the log."""
        if self.hang or not self.failed:
            return self.hang
        where = f" on {self.failed['node']}" if self.failed["node"] else ""
        code = self.failed["code"]
        how = "was killed" if code is None else f"failed first, with exit code {code}"
        return f"rank {self.failed['rank']}{where} {how}"


def lay(plan: runs.Plan, index: int, attempt: int, job: str, outcome: str, ranks: dict[int, dict]) -> Blame:
    """Whom the end of an attempt is laid to.

    Args:
        outcome: as launch/attempt.py judged it.
        ranks: as `runs.read_ranks` gives them.
    """
    world, folder = world_of(ranks), runs.ranks_folder(plan, index, attempt)
    sentence = ""
    if outcome == "hung":
        name = heartbeat.attempt_name(job, attempt)
        told, stopped = hang.collect(plan.works[index].run, name, world, folder)
        sentence, guilty = hang.explain(told, world, stopped), hang.culprits(told, world, stopped)
    else:
        guilty = _first(ranks, world) if outcome in FAILURES else []
    if not guilty:
        return Blame(hang=sentence)
    failed = {"rank": guilty[0], "node": _node(ranks, guilty[0]), "code": ranks.get(guilty[0], {}).get("code")}
    nodes = sorted({_node(ranks, rank) for rank in guilty} - {""}) if outcome in ("hung", "crash") else []
    return Blame(failed, nodes, sentence)


def world_of(ranks: dict[int, dict]) -> int:
    return next(iter(ranks.values()))["world"] if ranks else 0


def failed_twice(before: list[dict], nodes: list[str]) -> list[str]:
    """Those of the nodes that had failed before. before: the job's earlier ends."""
    count = Counter(node for end in before for node in end.get("nodes", []))
    return [node for node in nodes if count[node] + 1 >= TWICE]


def _first(ranks: dict[int, dict], world: int) -> list[int]:
    """The rank that failed first: of those that failed, the one whose record was written first, whatever its code. One
    that is killed is noted at once, and takes the others along a moment later, with a code of their own. Where no rank
    could write it, the ones that were killed before they wrote any, if they are of one node."""
    if failed := [rank for rank, one in ranks.items() if one["code"] not in (None, DONE, AGAIN, STOPPED)]:
        return [min(failed, key=lambda rank: ranks[rank]["written"])]
    killed = [rank for rank in range(world) if ranks.get(rank, {}).get("code") is None]
    nodes = {_node(ranks, rank) for rank in killed}
    return killed if len(killed) == 1 or (len(nodes) == 1 and nodes != {""}) else []


def _node(ranks: dict[int, dict], rank: int) -> str:
    return ranks.get(rank, {}).get("node", "")
