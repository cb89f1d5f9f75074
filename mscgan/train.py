"""Trains a family's networks: `python -m mscgan.train --config market1501 data.root=DIR run=RUN train.batch=64`.

One process a device; RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT say which
(launch/submit.py and torchrun set them, and so does mscgan/step.py under `srun -n N`; without them, one process). A
folder that another process trains in is refused (mscgan/lease.py). The same command again goes on from the newest
checkpoint, at any number of processes.
Exit codes (mscgan/errors.py): DONE, FAILED, MISTAKE, AGAIN after USR1, USR2, TERM or Ctrl-C (saved, run it again), or
STOPPED after a save where that was asked for (mscgan/asked.py).

RUN/config.yaml keeps what this start took, with the precision that `auto` came to, and RUN/config-000012345.yaml what
each start took, by the pairs from which it went on.
"""

import contextlib
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from PIL.Image import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

from mscgan import asked, checkpoint, dist, heartbeat, process, trackers
from mscgan.arguments import Parser
from mscgan.checks import check_weights
from mscgan.config import check_compile, load, micro_batch, save
from mscgan.data.loader import Loader
from mscgan.data.shards import ShardSet
from mscgan.data.tar_check import TarCheck
from mscgan.engine import best_precision
from mscgan.errors import AGAIN, DONE, FAILED, STOPPED, UserError, run, say
from mscgan.keys import Config, Data
from mscgan.lease import Lease, take
from mscgan.losses import Terms
from mscgan.prepare import prepare
from mscgan.rates import check_steps
from mscgan.recovery import Start, choose
from mscgan.saving import Diverged, Saver
from mscgan.schedule import beginning, check, complete, ending, made_with, schedule
from mscgan.state import State
from mscgan.step import take_ranks
from mscgan.telemetry import Telemetry
from mscgan.trained import Trained, sample_grid

SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)


def train(config: Config) -> int:
    """Runs the schedule from the newest checkpoint, or from the start, to its end or a signal. Returns the exit code.

    Raises:
        UserError: configuration, shards and checkpoint do not fit together.
        Diverged: a loss or a weight is NaN or infinite.
    """
    # What can be refused is refused before the ranks meet.
    signalled = _listen()
    folder = _run_folder(config)
    check_steps(config)
    trackers.check(config.log.trackers)
    beginning(config)
    shards = _open_shards(config.data)
    ranks = dist.init()
    check_compile(config.train, ranks.world)
    lease = dist.on_rank_0(lambda: _own(folder))
    start = choose(folder, ranks)
    allowed = check(config, start.facts, str(start.path), shards.fingerprint) if start.path else []
    if complete(config, start.facts):
        dist.on_rank_0(partial(checkpoint.export_again, folder, start.document))
        if dist.all_any(not (folder / "config.yaml").is_file())[0]:
            _keep(_for_this_machine(config, ranks, start.facts), start.facts["pairs"])
        if ranks.rank == 0:
            say(ending(config, f"already complete: {start.facts['pairs']} pairs"))
        code = DONE
    else:
        config = _for_this_machine(config, ranks, start.facts)
        code = _train(config, ranks, lease, start, shards, allowed, signalled)
    dist.shutdown()
    if lease:
        lease.release()
    return code


def _nothing() -> None:
    """What the other ranks do while rank 0 looks at the lease."""


def _publish(still_own: Callable[[], None], write: Callable[..., None], *what) -> None:
    """Looks at the lease and writes, on rank 0, with nothing between that waits for other ranks. A disk that does not
    answer is passed over: `write` does so too, and nothing else gets its name before the lease was looked at again."""

    def look_and_write() -> None:
        with contextlib.suppress(OSError):
            still_own()
        write(*what)

    dist.on_rank_0(look_and_write)


def _own(folder: Path) -> Lease:
    """Makes this process the run's owner, and removes what earlier ones left half done."""
    lease = take(folder)
    heartbeat.sweep(folder)
    checkpoint.sweep(folder)
    asked.sweep(folder, process.job())
    return lease


def _train(
    config: Config,
    ranks: dist.Ranks,
    lease: Lease | None,
    start: Start,
    shards: ShardSet,
    allowed: list[str],
    signalled: list[int],
) -> int:
    """The run from `start` on. What it holds of the process group is let go of on return.

    lease: rank 0's.
    """
    torch.backends.cudnn.benchmark = True  # the shapes never change
    folder, share = Path(config.run), micro_batch(config.train.batch, ranks.world, config.train.accumulate)
    state = State(config, ranks.device, share)
    _restore(config, state, start)
    start.tensors.clear()  # their files may be removed from now on
    pairs, steps, _ = beginning(config)
    pairs, steps = start.facts.get("pairs", pairs), start.facts.get("steps", steps)
    stages = schedule(config.family, config.train.pairs)
    total = stages[-1].end
    loader = _loader(config, ranks, shards, share, pairs)
    tar_check = TarCheck(shards.tars if ranks.local_rank == 0 else {})  # once a machine
    left = math.ceil((total - pairs) / config.train.batch)
    heartbeat.start(folder, ranks.rank, ranks.device.type, left, dist.collectives)
    samples, title = _samples(shards) if ranks.rank == 0 else (None, "")
    changed = _keep(config, pairs)
    history, code, compiled = History(ranks.world), DONE, ""
    still_own = lease.check if lease else _nothing
    log = config.log
    made = {"made_with": made_with(config) | {"shards": shards.fingerprint}, "ran_with": _ran_with(config, ranks)}
    with (
        closing(Telemetry(folder, ranks.rank, total, pairs, steps, config.train.batch, config)) as telemetry,
        Saver(folder, ranks, pairs, log.checkpoint, log.checkpoint_minutes, log.keep, still_own) as saver,
        asked.Asked(folder, ranks.rank) as wish,
    ):
        for line in _said(start, config, ranks, allowed, changed):
            telemetry.say(line)
        while pairs < total and code == DONE:
            # A step.
            stage = next(stage for stage in stages if pairs < stage.end)
            if state.stage != stage.name:
                state.enter(stage.name)
            if stage.name != compiled and (config.train.compile or config.train.cuda_graphs):
                telemetry.say(f"compiling the networks of stage {stage.name}; its first step may take minutes")
                compiled = stage.name
            began = time.monotonic()
            batches = [next(loader) for _ in range(config.train.accumulate)]
            wait_seconds = time.monotonic() - began
            terms = state.step([prepare(batch, config.data, config.train.precision) for batch in batches])
            history.add(loader.position, terms)
            pairs, steps = loader.position, steps + 1
            state.follow(config.train.batch)
            telemetry.step(config.train.batch, wait_seconds, stage.name, time.monotonic() - began)
            heartbeat.beat()

            # What is due after it: log, checkpoint, pictures, the end.
            over = pairs >= stage.end
            ill = tar_check.damage or (lease and lease.lost)
            stop, wanted = saver.meet(pairs, bool(signalled or ill), wish.save, wish.stop)
            _heed(tar_check, stop, folder, telemetry)
            saves = over or stop or wanted
            leaves = saver.leaves and saves and not stop
            shows = over or _due(pairs, config.train.batch, log.samples)
            if saves or shows or _due(pairs, config.train.batch, log.every):
                means, replaced = history.means(loader.corrupt)
                now = telemetry.pace(), pairs, (pairs - 1) // len(shards.pairs), stage.name, means, replaced
                _publish(still_own, telemetry.log, *now)
            if saves:
                own = {"pairs": pairs, "steps": steps, "began": stage.start, "ends": stage.end}
                if wish.save:
                    telemetry.say(f"saves at {pairs} pairs, as was asked")
                    wish.save = False
                saver.save(state, own | made, last=stop or leaves or pairs >= total)
            if shows:
                grid = _pictures(telemetry, pairs, state, samples, title) if samples else None
                _publish(still_own, telemetry.pictures, pairs, grid)
            if (stop or leaves) and pairs < total:
                code = AGAIN if stop else STOPPED
    if last_word := tar_check.last_word():
        say(last_word)
    if ranks.rank == 0:
        _end(config, folder, code, f"{pairs} pairs, {steps} steps")
    return code


def _keep(config: Config, pairs: int) -> list[str]:
    """Writes the configuration into the run's folder; which keys changed, on rank 0. Called by every rank."""
    kept = replace(config, data=replace(config.data, staged=""))
    return dist.on_rank_0(lambda: save(kept, Path(config.run), pairs)) or []


def _end(config: Config, folder: Path, code: int, where: str) -> None:
    """Says how training ended, and forgets that it was to stop."""
    if code != AGAIN:
        asked.forget(folder, "stop")
    went_on = f"saved at {where} ({checkpoint.newest(folder)}); the same command goes on from there"
    say(ending(config, f"done: {where}") if code == DONE else went_on)


def _heed(tar_check: TarCheck, stop: bool, folder: Path, telemetry: Telemetry) -> None:
    """Says that the tars match, or ends training on every rank: nothing is saved of what it has learnt from others.

    stop: on every rank, whether one of them has to; only then is asked whether damage is why.
    """
    if stop and (damage := dist.first_said(tar_check.damage)):
        raise UserError(f"{damage}. The newest checkpoint is {checkpoint.newest(folder) or 'none'}")
    if news := tar_check.news():
        telemetry.say(news)


def _pictures(telemetry: Telemetry, pairs: int, state: State, samples: ShardSet, title: str) -> Image | None:
    """A grid of the average's images. Where one of the sources cannot be read there is none, and training goes on."""
    trained = Trained(state.family, state.average, state.config, state.stage)
    try:
        return sample_grid(trained, samples, min(4, len(samples.pairs)), title)
    except (UserError, OSError) as error:
        telemetry.say(f"warning: no pictures at {pairs} pairs: {error}")
        return None


class History:
    """The loss terms of the steps since the last look, kept on the device so that no step waits for them."""

    def __init__(self, world: int) -> None:
        self._steps: list[tuple[int, Terms]] = []
        self._world, self._replaced = world, 0

    def add(self, pairs: int, terms: Terms) -> None:
        self._steps.append((pairs, terms))

    def means(self, replaced: int) -> tuple[dict[str, float], int]:
        """The means over steps and ranks, and the pairs replaced on all ranks, since the last call. Called by every
        rank, with the pairs that it has replaced since its start.

        Raises:
            Diverged: a term of a step is NaN or infinite on any rank.
        """
        values = {(pairs, name): value for pairs, terms in self._steps for name, value in terms.items()}
        counted = next(iter(values.values())).new_tensor(replaced - self._replaced, dtype=torch.float32)
        means = dist.mean(values | {(0, "replaced"): counted})
        self._replaced = replaced
        for pairs, terms in self._steps:
            if not all(math.isfinite(means[pairs, name]) for name in terms):
                found = ", ".join(f"{name} {means[pairs, name]:.4g}" for name in terms)
                raise Diverged(f"a loss is not finite in the step that ends at {pairs} pairs ({found})")
        names = list(self._steps[0][1])
        result = {name: sum(means[pairs, name] for pairs, _ in self._steps) / len(self._steps) for name in names}
        self._steps.clear()
        return result, round(means[0, "replaced"] * self._world)


def _due(pairs: int, batch: int, every: int) -> bool:
    return pairs // every > (pairs - batch) // every


def _listen() -> list[int]:
    """The list that the first of SIGNALS is noted in; the same signal once more has its default effect."""
    signalled: list[int] = []

    def note(number, _frame):
        signalled.append(number)
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    for number in SIGNALS:
        signal.signal(number, note)
    return signalled


def _run_folder(config: Config) -> Path:
    if not config.run:
        raise UserError("no run folder; set run=FOLDER, where checkpoints, logs and pictures go")
    folder = Path(config.run)
    newest = checkpoint.newest(folder)
    if newest and config.resume == "never":
        raise UserError(f"{newest} exists and resume=never; set another run=FOLDER, or resume=auto to go on")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"run={folder} cannot be made ({error.strerror}); set another run=FOLDER") from error
    return folder


def _open_shards(data: Data) -> ShardSet:
    shards = ShardSet(data.staged or data.root, "train")
    shards.check_size(data.height, data.width)
    return shards


def _samples(shards: ShardSet) -> tuple[ShardSet, str]:
    """The split that the pictures are of, and their title. Never the test split: people choose by these pictures."""
    if "validation" in shards.splits and len((held_out := ShardSet(shards.root, "validation")).pairs):
        return held_out, "people of the validation split, not trained on"
    return shards, "people of the train split"


def _loader(config: Config, ranks: dist.Ranks, shards: ShardSet, share: int, pairs: int) -> Loader:
    return Loader(
        shards,
        share,
        ranks.rank,
        ranks.world,
        config.train.seed,
        config.data.flip,
        ranks.device,
        decode=config.data.decode,
        threads=config.data.threads,
        max_corrupt=config.data.max_corrupt,
        position=pairs,
    )


def _for_this_machine(config: Config, ranks: dist.Ranks, facts: dict) -> Config:
    """The configuration with what it leaves to the machine: precision and threads. A run that goes on keeps its
    precision. Called by every rank."""
    train, data, cores = config.train, config.data, dist.take_cores(ranks)
    if not data.threads:
        data = replace(data, threads=min(cores, 8))
    if train.precision == "auto":
        precision, why = best_precision(ranks.device)
        (emulated,) = dist.all_any(precision != "bf16")
        if emulated and precision == "bf16":
            precision, why = "fp32", "another rank's hardware does not compute in bf16"
        if facts:
            precision, why = facts["made_with"]["train.precision"], "the run has had it from the start"
        train = replace(train, precision=precision)
        if ranks.rank == 0:
            say(f"precision: {precision}, as {why}")
    return replace(config, train=train, data=data)


def _ran_with(config: Config, ranks: dist.Ranks) -> dict:
    """What does not change the run's meaning, but the order in which its sums are taken."""
    zero = config.train.zero if config.train.backend == "deepspeed" else 0
    return {"ranks": ranks.world, "backend": config.train.backend, "zero": zero, "accumulate": config.train.accumulate}


def _said(start: Start, config: Config, ranks: dist.Ranks, allowed: list[str], changed: list[str]) -> list[str]:
    """Lines on where a start begins, and on what is not as it was."""
    if not start.path:
        after = f", after stage {config.train.init_after} of {config.train.init}" if config.train.init_after else ""
        return [f"starts at {beginning(config)[0]} pairs{after}: {config.run} has no checkpoint"]
    lines = [f"goes on from {start.facts['pairs']} pairs ({start.path})"]
    lines += [f"changed with leave (allow): {change}" for change in allowed]
    lines += [f"changed since the last start: {', '.join(changed)}"] if changed else []
    before, now = start.facts["ran_with"], _ran_with(config, ranks)
    if differs := [f"{key} {before[key]} -> {now[key]}" for key in now if before[key] != now[key]]:
        lines.append(
            f"{', '.join(differs)}: sums are taken in another order, so losses agree to rounding, not bit for bit"
        )
    if (wrote := start.document["version"]) != (own := version("mscgan")):
        lines.append(f"the checkpoint was written by mscgan {wrote}, this is {own}")
    return lines


def _restore(config: Config, state: State, start: Start) -> None:
    """Loads the checkpoint, or train.init at a run's start."""
    if start.path:
        state.restore(start.tensors, start.facts)
    elif config.train.init:
        after, (_, _, seen) = config.train.init_after, beginning(config)
        check_weights(Path(config.train.init), after, seen)
        try:
            state.start_from(load_file(config.train.init), after)
        except (OSError, SafetensorError) as error:
            raise UserError(f"train.init={config.train.init}: {error}; give a run's generator.safetensors") from error


def main() -> int:
    parser = Parser(prog="python -m mscgan.train", description=__doc__.split("\n")[0])
    parser.add_argument("--config", required=True, help="a preset (market1501, deepfashion, demo) or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes; mscgan/keys.py lists the keys")
    arguments = parser.parse_args()
    take_ranks()  # before the first mistake: it is said once
    config = load(arguments.config, arguments.overrides)
    try:
        return train(config)
    except Diverged as error:
        if os.environ.get("RANK", "0") == "0":  # every rank has found the same
            print(
                f"error: {error}; the newest checkpoint is {checkpoint.newest(config.run) or 'none'}; to go on from "
                "there, set a lower train.lr and allow=[train.lr], or train.precision=fp32 and allow=[train.precision]",
                file=sys.stderr,
            )
        return FAILED


if __name__ == "__main__":
    run(main)
