"""Trains a family's networks: `python -m mscgan.train --config market1501 data.root=DIR run=RUN train.batch=64`.

One process a device; RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT say which
(launch/submit.py and torchrun set them; without them, one process). The same command again goes on from the newest
checkpoint, at any number of processes.
Exit codes (mscgan/errors.py): DONE, FAILED, MISTAKE, or AGAIN after USR1, USR2, TERM or Ctrl-C: saved, run it again.
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
from mscgan.errors import AGAIN, DONE, FAILED, UserError, run
from mscgan.losses import Terms
from mscgan.prepare import prepare
from mscgan.rates import check_steps
from mscgan.state import State, schedule
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

    # Ranks, state and data, from where the run stands.
    ranks = dist.init()
    torch.backends.cudnn.benchmark = True  # the shapes never change
    share = micro_batch(config.train.batch, ranks.world, config.train.accumulate)
    state = State(config, ranks.device, share)
    pairs = _resume(config, state, shards, folder)
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
    heartbeat.start(folder, ranks.rank)
    samples, title = None, ""
    if ranks.rank == 0:
        samples, title = _samples(shards)
        save(replace(config, data=replace(config.data, staged="")), folder / "config.yaml")
    history = History()
    code = DONE
    with closing(Telemetry(folder, ranks.rank, total_pairs=stages[-1].end, start_pairs=pairs)) as telemetry:
        while pairs < stages[-1].end and code == DONE:
            # A step.
            stage = next(stage for stage in stages if pairs < stage.end)
            if state.stage != stage.name:
                state.enter(stage.name)
            began = time.monotonic()
            batches = [next(loader) for _ in range(config.train.accumulate)]
            wait_seconds = time.monotonic() - began
            terms = state.step([prepare(batch, config.data, config.train.precision) for batch in batches])
            history.add(loader.position, terms)
            pairs = loader.position
            state.follow(config.train.batch)
            telemetry.step(config.train.batch, wait_seconds)
            heartbeat.beat()

            # What is due after it: log, checkpoint, pictures, the end.
            over = pairs >= stage.end
            stop = dist.all_any(bool(signalled))
            saves = over or stop or _due(pairs, config.train.batch, config.log.checkpoint)
            shows = over or _due(pairs, config.train.batch, config.log.samples)
            if saves or shows or _due(pairs, config.train.batch, config.log.every):
                telemetry.log(pairs, (pairs - 1) // len(shards.pairs), stage.name, history.means(folder))
            if saves:
                _save(config, state, shards, pairs, folder, ranks)
            if shows and samples:
                trained = Trained(state.family, state.average, config, state.stage)
                telemetry.pictures(pairs, sample_grid(trained, samples, min(4, len(samples.pairs)), title))
            if stop and pairs < stages[-1].end:
                code = AGAIN
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


def _made_with(config: Config, shards: ShardSet) -> dict:
    """What has to stay for a run to go on as the same run: all but the schedule, rates and weights of losses."""
    data, options = config.data, vars(config.options())
    return {
        "shards": shards.fingerprint,
        "family": config.family,
        "train.seed": config.train.seed,
        "data.flip": data.flip,
        "data.heatmap": [data.heatmap, data.sigma, data.radius],
        "data.mask": [data.mask, data.radius],
    } | {f"{config.family}.{key}": value for key, value in options.items() if not key.startswith("lambda_")}


def _resume(config: Config, state: State, shards: ShardSet, folder: Path) -> int:
    """Loads the newest checkpoint, or train.init at a run's start. Returns the position in pairs."""
    # From rank 0: a shared file system may show the ranks different states.
    newest = dist.from_rank_0(str(checkpoint.newest(folder) or ""))
    if newest:
        tensors, facts = checkpoint.load(Path(newest))
        for name, now in _made_with(config, shards).items():
            if (before := facts["made_with"].get(name)) != now:
                raise UserError(
                    f"{newest} was made with {name} {before}, now it is {now}; set it as it was, or another run=FOLDER"
                )
        state.restore(tensors, facts)
        return facts["pairs"]
    if config.train.init:
        try:
            state.start_from(load_file(config.train.init))
        except (OSError, SafetensorError) as error:
            raise UserError(f"train.init={config.train.init}: {error}; give a run's generator.safetensors") from error
    return 0


def _save(config: Config, state: State, shards: ShardSet, pairs: int, folder: Path, ranks: dist.Ranks) -> None:
    """Exports the generators, then commits the checkpoint: one that is there has nothing left to export."""
    tensors, facts = state.state()
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise Diverged(f"{name} is not finite after {pairs} pairs", folder)
    facts |= {"pairs": pairs, "made_with": _made_with(config, shards)}
    if ranks.rank == 0:
        with files.whole(folder / "generator.safetensors") as temporary:
            save_file(state.export(), temporary, metadata={"stage": state.stage})
    checkpoint.save(folder, pairs, tensors, facts, config.log.keep, ranks)


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
