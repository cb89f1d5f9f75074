"""The stage-in of a job of several nodes: all wait until every node has its copy, but not for one that stands still.

    python launch/stage_together.py /shared/market1501 /local/nvme --run RUN

launch/job.py starts it, once a rank, as nodes may differ by minutes: training's rendezvous would give up before. A node
whose copying stands still is written down as a bad one (RUN/bad_nodes), and the job runs again without it.
"""

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from launch import runs
from launch.meeting import Meeting
from launch.stage_in import host, stage
from mscgan.errors import BAD_NODE, DONE, FAILED, run, say
from mscgan.paths import a_path

MEET_SECONDS = 180.0  # for rank 0's process to begin
TELL_SECONDS = 5.0  # between two words on how far a copy is
LOOK_SECONDS = 60.0  # between rank 0's looks at who is still copying


def stage_together(root: Path, to: str, run_folder: Path, silence: float) -> int:
    """Stages, and waits until all ranks have. Returns the exit code.

    Raises:
        UserError: as `stage`.
    """
    rank, world, local_world = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    address, port, told = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), -TELL_SECONDS
    try:
        meeting = Meeting(rank, world, address, port, MEET_SECONDS)
        meeting.say("node", host())

        def tell(copied: int) -> None:
            nonlocal told
            if time.monotonic() - told >= TELL_SECONDS:
                meeting.say("copied", copied)
                told = time.monotonic()

        stage(root, to, tell)
        meeting.say("staged", True)
        if rank == 0:
            bad = _wait_for_all(meeting, world, local_world, silence)
            runs.write_bad_nodes(run_folder, bad)
            code = meeting.announce("code", BAD_NODE if bad else DONE)
            meeting.say("left", True)
            meeting.gather("left", TELL_SECONDS)  # rank 0 serves the store, so it leaves last
            return code
        code = meeting.announce("code")
        meeting.say("left", True)
        return code
    except RuntimeError as error:
        say(f"[rank {rank}] the stage-in does not reach rank 0 at {address}: {' '.join(str(error).split())[:200]}")
        return FAILED


def _wait_for_all(meeting: Meeting, world: int, local_world: int, silence: float) -> dict[str, list[str]]:
    """Returns once all ranks have staged: no node; or the nodes of which none has copied anything for so long, with the
    reason."""
    copied: dict[int, int] = {}
    since: dict[int, float] = {}
    names: dict[int, str] = {}
    began = time.monotonic()
    while True:
        staged = meeting.gather("staged", min(LOOK_SECONDS, silence / 4))
        missing = sorted({rank // local_world for rank in range(world) if rank not in staged})
        if not missing:
            return {}
        names |= {rank // local_world: name for rank, name in meeting.gather("node", 0).items()}
        now = time.monotonic()
        for rank, count in meeting.gather("copied", 0).items():
            if count != copied.get(rank):
                copied[rank], since[rank // local_world] = count, now
        still = [node for node in missing if now - since.get(node, began) >= silence]
        if still:
            reason = f"its stage-in stood still for {silence:g} s"
            return {names.get(node, f"node {node}"): [reason] for node in still}
        if now - began >= LOOK_SECONDS:
            on = ", ".join(names.get(node, f"node {node}") for node in missing)
            say(f"stage-in: waits for {on} since {now - began:.0f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description="Copies shards to a disk of each node, once all ranks have met.")
    parser.add_argument("root", type=a_path, help="shard folder")
    parser.add_argument("to", help="folder on the nodes' own disks")
    parser.add_argument("--run", type=a_path, required=True, help="the run's folder")
    parser.add_argument("--silence", type=float, required=True, help="seconds after which a node that is still is bad")
    options = parser.parse_args()
    return stage_together(options.root, options.to, options.run, options.silence)


if __name__ == "__main__":
    run(main)
