"""Trains MsCGAN: `python -m mscgan.train --config market1501 data.root=DIR run=RUN train.batch=64`.

One process a device; RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT say which
(launch/submit.py and torchrun set them; without them, one process). The same command again goes on from the newest
checkpoint, at any number of processes.
Exit codes: 0 done, 1 failed, 2 a mistake of the user's, 85 saved after USR1, USR2, TERM or Ctrl-C (run it again).
"""

import argparse
import math
import os
import signal
import sys
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mscgan import checkpoint, dist, heartbeat, losses, pose
from mscgan.config import Config, Data, load, micro_batch, save
from mscgan.data.loader import Batch, Loader
from mscgan.data.shards import ShardSet
from mscgan.errors import UserError, run
from mscgan.generate import sample_grid
from mscgan.ops.body_mask import body_mask
from mscgan.ops.condition import condition, normalise
from mscgan.ops.pyramid import pyramid
from mscgan.stages import Networks, schedule
from mscgan.telemetry import Telemetry

DONE, FAILED, AGAIN = 0, 1, 85
SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


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
    signalled = _listen()
    folder = _run_folder(config)
    shards = _open_shards(config.data)
    stages = schedule(config.train.images_I, config.train.images_II, config.train.images_joint)
    ranks = dist.init()
    torch.backends.cudnn.benchmark = True  # the shapes never change
    share = micro_batch(config.train.batch, ranks.world, config.train.accumulate)
    networks = Networks(config, ranks.device, share)
    images = _resume(config, networks, shards, folder)
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
        position=images,
    )
    heartbeat.start(folder, ranks.rank)
    samples = None
    if ranks.rank == 0:
        samples = _samples(shards)
        save(replace(config, data=replace(config.data, staged="")), folder / "config.yaml")
    history = History()
    code = DONE
    with closing(Telemetry(folder, ranks.rank, total_images=stages[-1].end, start_images=images)) as telemetry:
        while images < stages[-1].end and code == DONE:
            stage = next(stage for stage in stages if images < stage.end)
            if networks.stage != stage.name:
                networks.enter(stage.name)
            began = time.monotonic()
            batches = [next(loader) for _ in range(config.train.accumulate)]
            wait_seconds = time.monotonic() - began
            inputs = [prepare(batch, config.data, DTYPES[config.train.precision]) for batch in batches]
            step = step_I if stage.name == "I" else step_adversarial
            networks.begin()
            history.add(loader.position, step(networks, inputs, config))
            images = loader.position
            networks.follow(config.train.batch)
            telemetry.step(config.train.batch, wait_seconds)
            heartbeat.beat()

            over = images >= stage.end
            stop = dist.all_any(bool(signalled))
            saves = over or stop or _due(images, config.train.batch, config.log.checkpoint)
            shows = over or _due(images, config.train.batch, config.log.samples)
            if saves or shows or _due(images, config.train.batch, config.log.every):
                telemetry.log(images, (images - 1) // len(shards.pairs), stage.name, history.means(folder))
            if saves:
                _save(config, networks, shards, images, folder, ranks)
            if shows and samples:
                grid = sample_grid(networks.average, samples, min(4, len(samples.pairs)), config.data)
                telemetry.pictures(images, grid)
            if stop and images < stages[-1].end:
                code = AGAIN
    del networks  # before the group that its engines talk through (dist.shutdown)
    dist.shutdown()
    return code


@dataclass
class Inputs:
    """What a step takes: (N, C, H, W) tensors on the training device, images in [-1, 1]."""

    condition: Tensor  # 21 channels, on CUDA 24: the source image x, the heatmaps of the target pose, padding
    x: Tensor
    y: Tensor  # the target image
    mask: Tensor  # (N, 1, H, W), the target's body mask M_p in {0, 1}


def prepare(batch: Batch, data: Data, dtype: torch.dtype) -> Inputs:
    """Flips, normalises and draws on the training device what the networks take."""
    flipped = pose.flip(batch.y_keypoints, data.width)
    keypoints = torch.where(batch.flip[:, None, None], flipped, batch.y_keypoints)
    channels = 24 if batch.x.is_cuda else 21  # whole 16-byte words a pixel, as tensor cores take them
    conditions = condition(batch.x, keypoints, batch.flip, data.heatmap, data.sigma, data.radius, dtype, channels)
    mask = body_mask(keypoints, data.height, data.width, data.mask, data.radius)
    x, y = (normalise(images, batch.flip, dtype) for images in (batch.x, batch.y))
    return Inputs(conditions, x, y, mask)


def step_I(networks: Networks, inputs: list[Inputs], config: Config) -> dict[str, Tensor]:
    """G1 learns L1 and masked L1 (equation 1). One micro-batch an element of `inputs`; returns the mean terms."""
    terms = []
    for one in inputs:
        y1 = networks.G(one.condition)
        total, parts = losses.stage_I(y1, one.y, one.mask, config.loss.lambda_bg_1)
        networks.G.backward(total)
        networks.G.step()
        terms.append(parts)
    return _mean(terms)


def step_adversarial(networks: Networks, inputs: list[Inputs], config: Config) -> dict[str, Tensor]:
    """The discriminators learn (equation 3), then the generator through the updated ones (equation 4).

    The generator runs once: what it makes serves both. Over several micro-batches its graphs do not fit beside each
    other, so there it runs again for its own update. Stage `joint` adds equation 1 for G1.
    """
    loss, model = config.loss, config.model
    lambda_D = loss.lambda_D or losses.equal_shares(model.discriminators)
    channels = 8 if inputs[0].y.is_cuda else 6  # tensor cores take 16-byte pixels
    once = len(inputs) == 1
    terms = []
    for one in inputs:
        with torch.set_grad_enabled(once), networks.G.autocast():
            y1, y_hat = _generate(networks, one, networks.G if once else networks.G.module)
        reals, fakes = pyramid(one.x, one.y, y_hat, model.discriminators, model.pool, channels)
        real_logits, fake_logits = networks.D(reals, [fake.detach() for fake in fakes])
        total, parts = losses.discriminator(real_logits, fake_logits, lambda_D)
        networks.D.backward(total)
        networks.D.step()
        terms.append(parts)

    networks.D.module.requires_grad_(False)
    for one, parts in zip(inputs, terms):
        if not once:
            y1, y_hat = _generate(networks, one, networks.G)
            _, fakes = pyramid(one.x, one.y, y_hat, model.discriminators, model.pool, channels)
        with networks.D.autocast():
            (fake_logits,) = networks.D.module(fakes)
        total, more = losses.stage_II(y_hat, one.y, one.mask, fake_logits, lambda_D, loss.lambda_L1_2, loss.lambda_bg_2)
        parts.update(more)
        if networks.stage == "joint":
            total_I, more = losses.stage_I(y1, one.y, one.mask, loss.lambda_bg_1)
            total = total + total_I
            parts.update(more)
        networks.G.backward(total)
        networks.G.step()
    networks.D.module.requires_grad_(True)
    return _mean(terms)


def _generate(networks: Networks, one: Inputs, G) -> tuple[Tensor, Tensor]:
    """y1 and y_hat, by the engine or the module `G` of the networks that the stage trains."""
    if networks.stage == "joint":
        return G(one.condition)
    with torch.no_grad(), networks.G.autocast():
        y1 = networks.generators.G1(one.condition)
    return y1, G(one.x, y1)


def _mean(terms: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([part[name] for part in terms]).mean() for name in terms[0]}


class History:
    """The loss terms of the steps since the last look, kept on the device so that no step waits for them."""

    def __init__(self):
        self._steps: list[tuple[int, dict[str, Tensor]]] = []

    def add(self, images: int, terms: dict[str, Tensor]) -> None:
        self._steps.append((images, terms))

    def means(self, folder: Path) -> dict[str, float]:
        """The means over steps and ranks since the last call. Called by every rank.

        Raises:
            Diverged: a term of a step is NaN or infinite on any rank; `folder` is the run's, whose checkpoint it names.
        """
        values = {(images, name): value for images, terms in self._steps for name, value in terms.items()}
        means = dist.mean(values)
        for images, terms in self._steps:
            if not all(math.isfinite(means[images, name]) for name in terms):
                found = ", ".join(f"{name} {means[images, name]:.4g}" for name in terms)
                raise Diverged(f"a loss is not finite in the step that ends at {images} pairs ({found})", folder)
        names = list(self._steps[0][1])
        result = {name: sum(means[images, name] for images, _ in self._steps) / len(self._steps) for name in names}
        self._steps.clear()
        return result


def _due(images: int, batch: int, every: int) -> bool:
    return images // every > (images - batch) // every


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


def _samples(shards: ShardSet) -> ShardSet:
    """The split that the pictures are of: people never seen, where the folder has them."""
    test = ShardSet(shards.root, "test") if "test" in shards.splits else shards
    return test if len(test.pairs) else shards


def _made_with(config: Config, shards: ShardSet) -> dict:
    """What has to stay for a run to go on as the same run; networks of another size are refused as they are loaded."""
    data = config.data
    return {
        "shards": shards.fingerprint,
        "train.seed": config.train.seed,
        "data.flip": data.flip,
        "data.heatmap": [data.heatmap, data.sigma, data.radius],
        "data.mask": [data.mask, data.radius],
        "model.pool": config.model.pool,
    }


def _resume(config: Config, networks: Networks, shards: ShardSet, folder: Path) -> int:
    """Loads the newest checkpoint, or train.init at a run's start. Returns the position in pairs."""
    # From rank 0: a shared file system may show the ranks different states.
    newest = dist.from_rank_0(str(checkpoint.newest(folder) or ""))
    if newest:
        tensors, facts = checkpoint.load(Path(newest))
        for name, now in _made_with(config, shards).items():
            if facts["made_with"][name] != now:
                raise UserError(
                    f"{newest} was made with {name} {facts['made_with'][name]}, now it is {now}; set it as it was, or "
                    "another run=FOLDER"
                )
        networks.restore(tensors, facts)
        torch.set_rng_state(tensors["rng"])
        return facts["images"]
    if config.train.init:
        try:
            networks.start_from(load_file(config.train.init))
        except (OSError, SafetensorError) as error:
            raise UserError(f"train.init={config.train.init}: {error}; give a run's generator.safetensors") from error
    return 0


def _save(config: Config, networks: Networks, shards: ShardSet, images: int, folder: Path, ranks: dist.Ranks) -> None:
    """Exports the generators, then commits the checkpoint: one that is there has nothing left to export."""
    tensors, facts = networks.state()
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise Diverged(f"{name} is not finite after {images} pairs", folder)
    tensors["rng"] = torch.get_rng_state()
    facts |= {"images": images, "made_with": _made_with(config, shards)}
    if ranks.rank == 0:
        partial = folder / "generator.safetensors.partial"
        save_file(networks.export(), partial)
        partial.rename(folder / "generator.safetensors")
    checkpoint.save(folder, images, tensors, facts, config.log.keep, ranks)


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
