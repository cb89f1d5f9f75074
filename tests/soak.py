"""`make soak`: a small run under random faults has to end with the bits of the run that nothing disturbed.

    python -m tests.soak --faults 200 --seed 0          all kinds, one after the other; the counts at the end
    python -m tests.soak --trial 17 --seed 0            one of them again

A trial disturbs a run one to three times, then starts it undisturbed until it is complete. Its kinds, places and
moments come from the seed and the trial's number alone. Ranks are forked from this process, which has imported all they
need, so that a start takes seconds. What is struck is the product's own code: the operations on files that it calls.
"""

import argparse
import contextlib
import errno
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file

from mscgan import checkpoint, errors, saving
from mscgan import train as training
from tests.ranks import free_port
from tests.shard_factory import write_shards

SETTINGS = (
    "data.height=32 data.width=32 data.threads=1 data.sigma=2 data.radius=2 mscgan.base=8 train.batch=12 "
    "train.pairs.I=48 train.pairs.II=48 train.pairs.joint=0 train.precision=fp32 train.ema_halflife=24 log.every=12 "
    "train.warmup=0 "
    "log.samples=48 log.checkpoint=12 log.checkpoint_minutes=0 log.keep=3"
).split()
BACKENDS = {"zero1": ["train.zero=1"], "ddp": ["train.backend=ddp"]}
OPERATIONS = (  # of the product, in each of which a fault may strike
    (checkpoint, "save_file"), (checkpoint, "_flush"), (checkpoint, "_digest"), (checkpoint, "load_file"),
    (checkpoint.shutil, "copyfile"), (checkpoint.shutil, "rmtree"), (Path, "rename"), (Path, "write_text"),
    (os, "replace"),
)  # fmt: skip
MOST_OPERATIONS = 60  # of a rank in an undisturbed run, about
START_SECONDS = 120  # a start that takes longer hangs


@dataclass
class Trial:
    """One run under faults, and what it came to."""

    number: int
    random: random.Random
    run: Path
    shards: Path
    backend: str
    faults: list[str] = field(default_factory=list)
    codes: list[list[int]] = field(default_factory=list)
    said: str = ""
    ranks: int = 2
    exact: bool = True  # false once another number of ranks took part
    wrongs: list[str] = field(default_factory=list)  # what a fault itself found

    def start(
        self,
        armed: Callable[[int], None] | None = None,
        outside: Callable[[list], None] | None = None,
        name: str = "",
    ) -> None:
        """Starts the run's ranks and waits for their end. `armed` is called in each rank before it trains, `outside`
        here with the processes; `name` is the folder of their logs."""
        logs = self.run.parent / (name or f"{self.run.name}-logs")
        shutil.rmtree(logs, ignore_errors=True)
        logs.mkdir()
        port = free_port()
        fork = multiprocessing.get_context("fork")
        processes = [fork.Process(target=_rank, args=(self, rank, port, logs, armed)) for rank in range(self.ranks)]
        for process in processes:
            process.start()
        if outside:
            outside(processes)
        end = time.monotonic() + START_SECONDS
        for process in processes:
            # Where a rank died the others wait for it: the launcher's part, to end them, is done here.
            while process.exitcode is None and time.monotonic() < end:
                process.join(0.1)
                if any(other.exitcode not in (None, 0, errors.AGAIN) for other in processes):
                    end = min(end, time.monotonic() + 3)
        hung = [process for process in processes if process.exitcode is None]
        for process in hung:
            process.kill()
            process.join()
        self.codes.append([process.exitcode for process in processes])
        self.said += "".join(path.read_text(errors="replace") for path in sorted(logs.glob("*.err")))


def _rank(trial: Trial, rank: int, port: int, logs: Path, armed: Callable[[int], None] | None) -> None:
    descriptor = os.open(logs / f"{rank}.err", os.O_WRONLY | os.O_CREAT)
    os.dup2(descriptor, 2)
    os.dup2(descriptor, 1)
    sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1)
    world = str(trial.ranks)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": world, "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": world}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    (logs / f"{rank}.pid").write_text(str(os.getpid()))
    saving.PAUSE_SECONDS = saving.LAST_PAUSE_SECONDS = 0.2
    torch.set_num_threads(1)
    if armed:
        armed(rank)
    sys.argv = ["train", "--config", "demo", f"data.root={trial.shards}", f"run={trial.run}", *SETTINGS]
    sys.argv += BACKENDS[trial.backend]
    errors.run(training.main)


def at_operation(number: int, action: Callable[[], None]) -> None:
    """From here on this process's `number`-th operation on files does `action` first."""
    count = 0

    def counting(operation: Callable) -> Callable:
        def operate(*arguments, **options):
            nonlocal count
            count += 1
            if count == number:
                action()
            return operation(*arguments, **options)

        return operate

    for owner, name in OPERATIONS:
        setattr(owner, name, counting(getattr(owner, name)))


# What strikes a rank, or all, at one of its operations.


def die(trial: Trial) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_together(trial: Trial) -> None:
    for path in (trial.run.parent / f"{trial.run.name}-logs").glob("*.pid"):
        if int(path.read_text()) != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(path.read_text()), signal.SIGKILL)
    die(trial)


def fail_once(trial: Trial) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def no_space_once(trial: Trial) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def sleep_5(trial: Trial) -> None:
    subprocess.Popen(["sh", "-c", f"sleep 5; kill -CONT {os.getpid()}"])
    os.kill(os.getpid(), signal.SIGSTOP)


AT_OPERATION = {
    "kill -9 of a rank": die, "kill -9 of all ranks": die_together, "EIO": fail_once, "ENOSPC": no_space_once,
    "a rank stopped for 5 s": sleep_5,
}  # fmt: skip


def strike_at_operation(trial: Trial, kind: str) -> None:
    rank, number = trial.random.randrange(trial.ranks), trial.random.randrange(1, MOST_OPERATIONS)
    trial.faults.append(f"{kind} (rank {rank}, operation {number})")

    def armed(mine: int) -> None:
        if mine == rank:
            at_operation(number, lambda: AT_OPERATION[kind](trial))

    trial.start(armed)


# What the scheduler sends, at some instant.

SIGNALS = {
    "kill -9 at an instant": (signal.SIGKILL,),
    "SIGTERM": (signal.SIGTERM,),
    "SIGTERM twice": (signal.SIGTERM, signal.SIGTERM),
    "SIGUSR1, then SIGTERM": (signal.SIGUSR1, signal.SIGTERM),
}


def strike_at_instant(trial: Trial, kind: str) -> None:
    seconds, rank = trial.random.uniform(0, 8), trial.random.randrange(trial.ranks)
    everyone = trial.random.random() < 0.5
    trial.faults.append(f"{kind} ({'all ranks' if everyone else f'rank {rank}'}, after {seconds:.1f} s)")

    def outside(processes: list) -> None:
        time.sleep(seconds)
        for number in SIGNALS[kind]:
            for process in processes if everyone else [processes[rank]]:
                if process.exitcode is None:
                    os.kill(process.pid, number)
            time.sleep(0.3)

    trial.start(outside=outside)


# What happens to files between two starts; at least one checkpoint stays whole.


def flip(path: Path, chance: random.Random) -> None:
    file = chance.choice(sorted(path.iterdir()))
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


def truncate(path: Path, chance: random.Random) -> None:
    file = chance.choice(sorted(path.iterdir()))
    os.truncate(file, chance.randrange(file.stat().st_size))


def lose(path: Path, chance: random.Random) -> None:
    chance.choice(sorted(path.iterdir())).unlink()


def empty(path: Path, chance: random.Random) -> None:
    chance.choice(sorted(path.iterdir())).write_bytes(b"")


def swap(path: Path, chance: random.Random) -> None:
    other = next(one for one in sorted(path.parent.iterdir()) if checkpoint.NAME.fullmatch(one.name) and one != path)
    name = chance.choice(sorted(file.name for file in path.iterdir()))
    if (other / name).exists():
        shutil.copyfile(other / name, path / name)


def copy(path: Path, chance: random.Random) -> None:
    shutil.copytree(path, path.with_name(f"pairs-{chance.randrange(10**9, 10**11)}"))


DAMAGES = {"a flipped bit": flip, "a cut file": truncate, "a lost file": lose, "an empty file": empty,
           "files swapped": swap, "a copied checkpoint": copy}  # fmt: skip


def damage(trial: Trial, kind: str) -> None:
    trial.start(outside=_stop_after_a_while(trial))
    there = checkpoint.all_of(trial.run)
    if len(there) < 2:
        trial.faults.append(f"{kind}: not done, there were no two checkpoints")
        return
    path = there[-1] if trial.random.random() < 0.7 else trial.random.choice(there)
    trial.faults.append(f"{kind} ({path.name})")
    DAMAGES[kind](path, trial.random)


def _stop_after_a_while(trial: Trial) -> Callable[[list], None]:
    """Ends the run by a signal when it has two checkpoints, so that something is left to do."""

    def outside(processes: list) -> None:
        end = time.monotonic() + START_SECONDS
        while len(checkpoint.all_of(trial.run)) < 2 and time.monotonic() < end and processes[0].exitcode is None:
            time.sleep(0.05)
        for process in processes:
            if process.exitcode is None:
                os.kill(process.pid, signal.SIGUSR1)

    return outside


# A file system with too little room, and one that turns read-only.


@contextlib.contextmanager
def small_disk(trial: Trial, options: str) -> Iterator[None]:
    trial.run.mkdir(parents=True, exist_ok=True)
    moved = trial.run.parent / f"{trial.run.name}-moved"
    shutil.copytree(trial.run, moved)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", trial.run], check=True)
    try:
        with contextlib.suppress(shutil.Error, OSError):  # what does not fit is not there: so it is on a full disk
            shutil.copytree(moved, trial.run, dirs_exist_ok=True)
        yield
        subprocess.run(["mount", "-o", "remount,rw,size=1g,nr_inodes=100000", trial.run], check=True)
        shutil.rmtree(moved)
        shutil.copytree(trial.run, moved)
    finally:
        subprocess.run(["umount", trial.run], check=True)
    shutil.copytree(moved, trial.run, dirs_exist_ok=True)
    shutil.rmtree(moved)


def full_disk(trial: Trial, kind: str) -> None:
    size = trial.random.randrange(1_500, 9_000)
    options = f"size={size}k" if kind == "a full disk" else f"size=1g,nr_inodes={trial.random.randrange(20, 60)}"
    trial.faults.append(f"{kind} ({options})")
    with small_disk(trial, options):
        trial.start()


def read_only(trial: Trial, kind: str) -> None:
    trial.faults.append(kind)

    def outside(processes: list) -> None:
        time.sleep(trial.random.uniform(1, 6))
        subprocess.run(["mount", "-o", "remount,ro", trial.run], check=False)

    with small_disk(trial, "size=1g"):
        trial.start(outside=outside)


# The rest.


def other_ranks(trial: Trial, kind: str) -> None:
    trial.exact = False
    trial.ranks = trial.random.choice([1, 3])
    trial.faults.append(f"{kind} ({trial.ranks})")
    trial.start(outside=_stop_after_a_while(trial))
    trial.ranks = 2


def clock_set_back(trial: Trial, kind: str) -> None:
    trial.faults.append(kind)
    now = time.time

    def armed(rank: int) -> None:
        time.time = lambda: now() - 86_400 * 400

    trial.start(armed, _stop_after_a_while(trial))


def two_owners(trial: Trial, kind: str) -> None:
    """A second start beside the first: one of them trains, the other is refused with a line."""
    trial.faults.append(kind)
    twin = Trial(trial.number, trial.random, trial.run, trial.shards, trial.backend)

    def outside(processes: list) -> None:
        time.sleep(trial.random.choice([0.0, 0.0, trial.random.uniform(0, 6)]))
        twin.start(name=f"{trial.run.name}-twin-logs")

    trial.start(outside=outside)
    both = [trial.codes[-1], twin.codes[-1]]
    refused = [codes for codes in both if codes[0] == errors.MISTAKE]  # the other rank lets rank 0 say it first
    if not (both == [[0, 0], [0, 0]] or (len(refused) == 1 and [0, 0] in both)):
        trial.wrongs.append(f"two owners ended with {both}")
    trial.said += twin.said


def kinds() -> dict[str, Callable[[Trial, str], None]]:
    """All kinds of faults that this machine allows."""
    table: dict[str, Callable[[Trial, str], None]] = {}
    table |= dict.fromkeys(AT_OPERATION, strike_at_operation)
    table |= dict.fromkeys(SIGNALS, strike_at_instant)
    table |= dict.fromkeys(DAMAGES, damage)
    table |= {"other ranks": other_ranks, "the clock set back": clock_set_back, "two owners": two_owners}
    if may_mount():
        table |= {"a full disk": full_disk, "no inodes left": full_disk, "a disk that turns read-only": read_only}
    return table


def may_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False)
        if mounted.returncode == 0:
            subprocess.run(["umount", folder], check=True)
    return mounted.returncode == 0


@dataclass(frozen=True)
class Reference:
    """What a run that nothing disturbed left."""

    weights: dict[str, torch.Tensor]
    curve: list[dict]


LOSSES = ("pairs", "steps", "stage", "L1_1", "bg_1", "D1_real", "D1_fake", "D2_real", "L1_2", "bg_2", "G_D1", "G_D2")


def left_by(run: Path) -> Reference:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return Reference(
        load_file(run / "generator.safetensors"), [{key: line[key] for key in LOSSES if key in line} for line in lines]
    )


def wrong(trial: Trial, reference: Reference) -> list[str]:
    """What a trial that has ended has to answer for."""
    found = list(trial.wrongs)
    if trial.codes[-1] != [0] * trial.ranks:
        found.append("the run was lost")
        return found
    got = left_by(trial.run)
    if trial.exact and any(not torch.equal(got.weights[name], reference.weights[name]) for name in reference.weights):
        found.append("other weights")
    if not trial.exact:
        apart = max((got.weights[name] - reference.weights[name]).abs().max().item() for name in reference.weights)
        if apart > 1e-2:
            found.append(f"weights {apart:.2g} apart with other ranks")
    if [line["pairs"] for line in got.curve] != [line["pairs"] for line in reference.curve]:
        found.append("pairs lost or repeated")
    elif trial.exact and got.curve != reference.curve:
        found.append("another curve")
    left = [path.name for path in (trial.run / "checkpoints").iterdir() if path.name.startswith(LEFT_OVER)]
    left += [path.name for path in trial.run.iterdir() if path.name.startswith(".")]
    if left:
        found.append(f"left over: {', '.join(left)}")
    for ended in zip(trial.codes, trial.said.split("\0"), strict=False):
        if errors.MISTAKE in ended[0] and "Traceback" in ended[1]:
            found.append("a traceback for a mistake")
    return found


LEFT_OVER = (checkpoint.WRITING, checkpoint.REMOVING, checkpoint.REPLACED)


def run_trial(
    number: int, seed: int, folder: Path, shards: Path, references: dict[str, Reference]
) -> tuple[Trial, list]:
    chance = random.Random(f"{seed}/{number}")
    trial = Trial(number, chance, folder / f"trial-{number}", shards, chance.choice(sorted(BACKENDS)))
    table = kinds()
    for turn in range(chance.choice([1, 1, 2, 3])):
        # The first kind goes round, so that every kind has its turn.
        kind = sorted(table)[number % len(table)] if turn == 0 else chance.choice(sorted(table))
        table[kind](trial, kind)
        trial.said += "\0"
    for _ in range(3):
        trial.start()
        trial.said += "\0"
        if trial.codes[-1] == [0] * trial.ranks:
            break
    return trial, wrong(trial, references[trial.backend])


def soak(faults: int, seed: int, folder: Path, seconds: float = float("inf"), only: int | None = None) -> Counter:
    """Trials until `faults` faults have struck or the seconds are over. Returns how often what came out."""
    shards = write_shards(folder / "shards", persons=4, views=6, height=32, width=32)
    references = {}
    for backend in BACKENDS:
        undisturbed = Trial(-1, random.Random(0), folder / f"undisturbed-{backend}", shards, backend)
        undisturbed.start()
        assert undisturbed.codes == [[0, 0]], undisturbed.said
        references[backend] = left_by(undisturbed.run)
    counts: Counter = Counter()
    end = time.monotonic() + seconds
    number = 0 if only is None else only
    while counts["faults"] < faults and time.monotonic() < end:
        trial, found = run_trial(number, seed, folder, shards, references)
        counts["faults"] += len(trial.faults)
        counts["trials"] += 1
        counts["checkpoints passed over"] += trial.said.count("is damaged (")
        counts.update(found)
        print(
            f"{number}: {trial.backend}, {'; '.join(trial.faults)}: {'; '.join(found) or 'as undisturbed'}", flush=True
        )
        if found:
            print(f"exit codes {trial.codes}\n{trial.said[-3000:]}", flush=True)
            return counts
        shutil.rmtree(trial.run)
        if only is not None:
            break
        number += 1
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trial", type=int, help="this one alone")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mscgan-soak-") as folder:
        counts = soak(arguments.faults, arguments.seed, Path(folder), only=arguments.trial)
    bad = counts.keys() - {"faults", "trials", "checkpoints passed over"}
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
    print(f"FAILED: {', '.join(bad)}" if bad else "0 runs lost, 0 other weights, 0 pairs lost or repeated")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
