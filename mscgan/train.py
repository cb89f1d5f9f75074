"""Trains a family's networks: `python -m mscgan.train --config market1501 data.root=DIR run=RUN train.batch=64`.

One process a device; RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT say which
(launch/submit.py and torchrun set them; without them, one process). The same command again goes on from the newest
checkpoint, at any number of processes.
Exit codes (mscgan/errors.py): DONE, FAILED, MISTAKE, or AGAIN after USR1, USR2, TERM or Ctrl-C: saved, run it again.

RUN/config.yaml keeps what this start took: where train.precision is `auto`, the precision that it came to. The same
command elsewhere decides anew, and so may go on in another precision, as weights and moments are float32 in each.
"""

import argparse
import math
import os
import signal
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mscgan import checkpoint, dist, files, heartbeat
from mscgan.config import Config, Data, load, micro_batch, save
from mscgan.data.loader import Loader
from mscgan.data.shards import ShardSet
from mscgan.engine import best_precision
from mscgan.errors import AGAIN, DONE, FAILED, UserError, run
from mscgan.losses import Terms
from mscgan.prepare import prepare
from mscgan.rates import check_steps
from mscgan.schedule import check, complete, ending, made_with, schedule
from mscgan.state import State
from mscgan.telemetry import Telemetry
from mscgan.trained import Trained, sample_grid

SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)


class Diverged(RuntimeError):
    """A loss or a weight is NaN or infinite."""

    def __init__(self, what: str, folder: Path):
        super().__init__(
            f"{what}; the last good checkpoint is {checkpoint.newest(folder) or 'none'}; lower train.lr, or set "
            "train.precision=fp32, and run again to go on from there"
        )


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
    shards = _open_shards(config.data)
    stages = schedule(config.family, config.train.pairs)

    # Ranks, and where the run stands; from rank 0, as a shared file system may show them different states.
    ranks = dist.init()
    newest = dist.from_rank_0(str(checkpoint.newest(folder) or ""))
    facts = checkpoint.facts(Path(newest)) if newest else {}
    if facts:
        check(config, facts, newest, shards.fingerprint)
    if complete(config, facts):
        if ranks.rank == 0:
            print(ending(config.run, f"already complete: {facts['pairs']} pairs"), file=sys.stderr)
        dist.shutdown()
        return DONE

    # State and data from there.
    torch.backends.cudnn.benchmark = True  # the shapes never change
    share = micro_batch(config.train.batch, ranks.world, config.train.accumulate)
    config = _for_this_machine(config, ranks)
    state = State(config, ranks.device, share)
    _restore(config, state, newest)
    pairs = facts.get("pairs", 0)
    steps = facts.get("steps", 0)
    loader = Loader(
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
    total = stages[-1].end
    left = math.ceil((total - pairs) / config.train.batch)
    heartbeat.start(folder, ranks.rank, ranks.device.type, left, dist.collectives)
    samples, title = None, ""
    if ranks.rank == 0:
        samples, title = _samples(shards)
        save(replace(config, data=replace(config.data, staged="")), folder / "config.yaml")
    history = History()
    code, compiled = DONE, ""
    with closing(Telemetry(folder, ranks.rank, total, pairs, steps, config.train.batch)) as telemetry:
        if newest:
            telemetry.say(f"goes on from {pairs} pairs ({newest})")
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
            stop = dist.all_any(bool(signalled))
            saves = over or stop or _due(pairs, config.train.batch, config.log.checkpoint)
            shows = over or _due(pairs, config.train.batch, config.log.samples)
            if saves or shows or _due(pairs, config.train.batch, config.log.every):
                telemetry.log(pairs, (pairs - 1) // len(shards.pairs), stage.name, history.means(folder))
            if saves:
                own = {"pairs": pairs, "steps": steps, "began": stage.start, "ends": stage.end}
                _save(state, own | {"made_with": made_with(config) | {"shards": shards.fingerprint}}, config, ranks)
            if shows and samples:
                trained = Trained(state.family, state.average, config, state.stage)
                telemetry.pictures(pairs, sample_grid(trained, samples, min(4, len(samples.pairs)), title))
            if stop and pairs < total:
                code = AGAIN
    if ranks.rank == 0:
        where = f"{pairs} pairs, {steps} steps"
        went_on = f"saved at {where} ({checkpoint.newest(folder)}); the same command goes on from there"
        print(ending(config.run, f"done: {where}") if code == DONE else went_on, file=sys.stderr, flush=True)
    del state  # before the group that its engines talk through (dist.shutdown)
    dist.shutdown()
    return code


class History:
    """The loss terms of the steps since the last look, kept on the device so that no step waits for them."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, Terms]] = []

    def add(self, pairs: int, terms: Terms) -> None:
        self._steps.append((pairs, terms))

    def means(self, folder: Path) -> dict[str, float]:
        """The means over steps and ranks since the last call. Called by every rank.

        Raises:
            Diverged: a term of a step is NaN or infinite on any rank; `folder` is the run's, whose checkpoint it names.
        """
        values = {(pairs, name): value for pairs, terms in self._steps for name, value in terms.items()}
        means = dist.mean(values)
        for pairs, terms in self._steps:
            if not all(math.isfinite(means[pairs, name]) for name in terms):
                found = ", ".join(f"{name} {means[pairs, name]:.4g}" for name in terms)
                raise Diverged(f"a loss is not finite in the step that ends at {pairs} pairs ({found})", folder)
        names = list(self._steps[0][1])
        result = {name: sum(means[pairs, name] for pairs, _ in self._steps) / len(self._steps) for name in names}
        self._steps.clear()
        return result


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


def _for_this_machine(config: Config, ranks: dist.Ranks) -> Config:
    """The configuration with what it leaves to the machine: precision and threads. Called by every rank."""
    train, data, cores = config.train, config.data, dist.cores(ranks)
    if "OMP_NUM_THREADS" not in os.environ:  # torch would take the whole machine for each rank
        torch.set_num_threads(cores)
    if not data.threads:
        data = replace(data, threads=min(cores, 8))
    if train.precision == "auto":
        precision, why = best_precision(ranks.device)
        if dist.all_any(precision != "bf16") and precision == "bf16":
            precision, why = "fp32", "another rank's hardware does not compute in bf16"
        train = replace(train, precision=precision)
        if ranks.rank == 0:
            print(f"precision: {precision}, as {why}", file=sys.stderr, flush=True)
    return replace(config, train=train, data=data)


def _restore(config: Config, state: State, newest: str) -> None:
    """Loads the newest checkpoint, or train.init at a run's start."""
    if newest:
        state.restore(*checkpoint.load(Path(newest)))
    elif config.train.init:
        try:
            state.start_from(load_file(config.train.init))
        except (OSError, SafetensorError) as error:
            raise UserError(f"train.init={config.train.init}: {error}; give a run's generator.safetensors") from error


def _save(state: State, own: dict, config: Config, ranks: dist.Ranks) -> None:
    """Exports the generators, then commits the checkpoint: one that is there has nothing left to export.

    own: the loop's facts, beside those of `state`.
    """
    folder, pairs = Path(config.run), own["pairs"]
    tensors, facts = state.state()
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise Diverged(f"{name} is not finite after {pairs} pairs", folder)
    if ranks.rank == 0:
        with files.whole(folder / "generator.safetensors") as temporary:
            save_file(state.export(), temporary, metadata={"stage": state.stage})
    checkpoint.save(folder, pairs, tensors, facts | own, config.log.keep, ranks)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m mscgan.train", description=__doc__.split("\n")[0])
    parser.add_argument("--config", required=True, help="a preset (market1501, deepfashion, demo) or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes; mscgan/config.py lists the keys")
    arguments = parser.parse_args()
    try:
        return train(load(arguments.config, arguments.overrides))
    except Diverged as error:
        if os.environ.get("RANK", "0") == "0":  # every rank has found the same
            print(f"error: {error}", file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    run(main)
