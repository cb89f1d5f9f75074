"""One rank of tests/test_engine.py: a tiny GAN trained in every mode; losses and weights go to files.

`engine_rank.py FOLDER` with two ranks runs everything; one rank is the middle part of the run that changes its ranks.
"""

import json
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as torch_dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from mscgan import checkpoint, dist, engine
from mscgan.checkpoint import Piece
from mscgan.layers.batch_norm import sync_batch_norm

STEPS, BATCH, LR, BETAS = 4, 3, 1e-3, (0.5, 0.9)
engine.BUCKET = 200  # some tensors share a bucket, others are larger than one, as the real networks' are
BACKENDS = {"ddp": ("ddp", 0), "zero0": ("deepspeed", 0), "zero1": ("deepspeed", 1), "zero2": ("deepspeed", 2),
            "zero3": ("deepspeed", 3)}  # fmt: skip
VARIANTS = ("plain", "batch_norm", "sync_batch_norm", "accumulate")
MODES = [
    (mode, variant)
    for mode in BACKENDS
    for variant in VARIANTS
    if mode != "zero3" or variant in ("sync_batch_norm", "accumulate")  # it takes as long as all others together
]
MIXED = ("ddp", "zero0", "zero1", "zero3")


class TinyG(nn.Module):
    """As Generators: two images from one input."""

    def __init__(self):
        super().__init__()
        self.G1 = nn.Sequential(nn.Conv2d(3, 7, 3, padding=1), nn.ReLU(), nn.Conv2d(7, 3, 3, padding=1))
        self.G2 = nn.Sequential(nn.Conv2d(6, 8, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y1 = self.G1(x)
        return y1, y1 + self.G2(torch.cat([x, y1], 1))


class TinyD(nn.Module):
    """As Discriminators: groups of images at two scales give lists of logits."""

    def __init__(self, norm: bool):
        super().__init__()
        self.D1, self.D2 = self._discriminator(16, norm), self._discriminator(4, norm)

    @staticmethod
    def _discriminator(features: int, norm: bool) -> nn.Sequential:
        middle = [nn.Conv2d(8, 5, 4, 2, 1, bias=not norm)] + [nn.BatchNorm2d(5)] * norm
        last = [nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(5 * features, 1)]
        return nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), *middle, *last)

    def forward(self, *groups: list[Tensor]) -> list[list[Tensor]]:
        return [[self.D1(group[0])[:, 0], self.D2(group[1])[:, 0]] for group in groups]


def networks(variant: str) -> tuple[TinyG, TinyD]:
    torch.manual_seed(0)
    return TinyG(), TinyD(norm=variant.endswith("batch_norm"))


def images(step: int, number: int) -> Tensor:
    """The `number`-th of the step's micro-batches over all ranks."""
    return torch.rand(BATCH, 3, 16, 16, generator=torch.Generator().manual_seed(100 * step + number)) * 2 - 1


def scales(x: Tensor) -> list[Tensor]:
    return [x, F.avg_pool2d(x, 2)]


def loss_D(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    return sum(F.softplus(-r).mean() + F.softplus(f).mean() for r, f in zip(real, fake))


def loss_G(y1: Tensor, y: Tensor, x: Tensor, fake: list[Tensor]) -> Tensor:
    return sum(F.softplus(-f).mean() for f in fake) + 3 * (y - x.flip(3)).abs().mean() + (y1 - x).square().mean()


def gan_step(G: engine.Engine, D: engine.Engine, batches: list[Tensor]) -> list[float]:
    """One step as the training loop does it. Returns the means of D's and G's loss over micro-batches and ranks."""
    once = len(batches) == 1
    sums = torch.zeros(2)
    for x in batches:
        with torch.set_grad_enabled(once), G.autocast():
            y1, y = (G if once else G.module)(x)
        real, fake = D(scales(x), [image.detach() for image in scales(y)])
        total = loss_D(real, fake)
        D.backward(total)
        D.step()
        sums[0] += total.detach() / len(batches)
    D.module.requires_grad_(False)
    for x in batches:
        if not once:
            y1, y = G(x)
        with D.autocast():
            (fake,) = D.module(scales(y))
        total = loss_G(y1, y, x, fake)
        G.backward(total)
        G.step()
        sums[1] += total.detach() / len(batches)
    D.module.requires_grad_(True)
    return list(dist.mean({"D": sums[0], "G": sums[1]}).values())


class Run:
    """A tiny GAN in its two engines, and what it did."""

    def __init__(self, ranks: dist.Ranks, mode: str, variant: str = "plain", precision: str = "fp32"):
        self.ranks, self.accumulate = ranks, 2 if variant == "accumulate" else 1
        G, D = networks(variant)
        if variant == "sync_batch_norm":
            sync_batch_norm(D)
        backend, zero = BACKENDS[mode]
        self.G, self.D = (
            engine.make_engine(module, backend, zero, precision, LR, BETAS, self.accumulate, BATCH) for module in (G, D)
        )
        self.losses = []

    def go(self, first: int, last: int) -> "Run":
        for step in range(first, last):
            numbers = [self.ranks.rank + self.ranks.world * i for i in range(self.accumulate)]
            self.losses.append(gan_step(self.G, self.D, [images(step, number) for number in numbers]))
        return self

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """Flat tensors and scalars, as a checkpoint would hold them."""
        tensors, scalars = {}, {}
        for prefix, trainer in (("G", self.G), ("D", self.D)):
            for key, value in whole_state(trainer).items():
                if isinstance(value, dict):
                    tensors |= {f"{prefix}/{key}/{name}": tensor for name, tensor in value.items()}
                else:
                    scalars[f"{prefix}/{key}"] = value
        return tensors, scalars

    def load(self, tensors: dict[str, Tensor], scalars: dict) -> "Run":
        for prefix, trainer in (("G", self.G), ("D", self.D)):
            state: dict = {"weights": {}, "buffers": {}}
            for path, tensor in tensors.items():
                network, key, name = path.split("/")
                if network == prefix:
                    state.setdefault(key, {})[name] = tensor
            trainer.load(state | {path[2:]: value for path, value in scalars.items() if path[0] == prefix})
        return self


def whole_state(trainer: engine.Engine) -> dict:
    """What `load` takes, from what all ranks hold, put together as a checkpoint puts it together."""
    with trainer.gathered():
        weights = {name: parameter.detach().clone() for name, parameter in trainer.module.named_parameters()}
    buffers = {name: buffer.clone() for name, buffer in trainer.module.named_buffers()}
    state = {"weights": weights, "buffers": buffers} | trainer.scalars()
    for moment, held in trainer.moments().items():
        mine = {Piece(part, [], start).key(name): part.clone() for name, (part, start) in held.items()}
        everyone: list = [None] * torch_dist.get_world_size()
        torch_dist.all_gather_object(everyone, mine)
        state[moment] = checkpoint.join(everyone, {name: list(weights[name].shape) for name in weights})
    return state


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def skips_overflow(ranks: dist.Ranks, mode: str) -> dict:
    """Trains in fp16 (as on CUDA; slow here, but right) with gradients that overflow in step 1 on rank 1 alone."""

    def start() -> engine.Engine:
        backend, zero = BACKENDS[mode]
        module = networks("plain")[0].G1
        if backend == "ddp":
            return engine._DDP(module, "fp16", LR, BETAS, 1)
        return engine._DeepSpeed(module, zero, "fp16", LR, BETAS, 1, BATCH)

    trainer, moved, scales_after = start(), [], []
    before = whole_state(trainer)["weights"]
    for step in range(3):
        loss = trainer(images(step, ranks.rank)).square().mean()
        trainer.backward(loss * (float("inf") if step == 1 and ranks.rank == 1 else 1.0))
        trainer.step()
        state = whole_state(trainer)
        moved.append(not same(before, state["weights"]))
        scales_after.append(state["loss_scale"])
        before = state["weights"]
    finite = all(tensor.isfinite().all().item() for tensor in before.values())
    resumed = start()
    resumed.load(state)  # before a first step
    return {
        "moved": moved, "scales": scales_after, "finite": finite, "step": state["step"],
        "resumed_scale": whole_state(resumed)["loss_scale"],
    }  # fmt: skip


def two_ranks(ranks: dist.Ranks, folder: Path) -> dict:
    report: dict = {"losses": {}, "resumed": {}, "weights_only": {}, "gathered": {}, "bf16": {}, "overflow": {}}
    weights = {}
    for mode, variant in MODES:
        run = Run(ranks, mode, variant).go(0, 2)
        half = run.state()
        run.go(2, STEPS)
        tensors, _ = run.state()
        weights |= {f"{mode}/{variant}/{name}": tensor for name, tensor in tensors.items()}
        report["losses"][f"{mode}/{variant}"] = run.losses
        # A new pair of engines goes on from the middle: before their first step there is no state but the loaded.
        resumed = Run(ranks, mode, variant).load(*half)
        restored = resumed.state()
        resumed.go(2, STEPS)
        report["resumed"][f"{mode}/{variant}"] = {
            "restored": same(restored[0], half[0]) and restored[1] == half[1] == {"G/step": 2, "D/step": 2},
            "ends_alike": same(resumed.state()[0], tensors) and resumed.losses == run.losses[2:],
        }
        if variant == "accumulate":
            only = {name: tensor for name, tensor in half[0].items() if "exp_avg" not in name}
            taken = run.load(only, {}).state()[0]
            report["weights_only"][mode] = same(only, {name: taken[name] for name in only})
            whole = dict(networks(variant)[0].named_parameters())
            with run.G.gathered():
                now = dict(run.G.module.named_parameters())
                report["gathered"][mode] = all(torch.equal(now[n], only[f"G/weights/{n}"]) for n in whole)
    for mode in MIXED:
        report["bf16"][mode] = Run(ranks, mode, "sync_batch_norm", "bf16").go(0, STEPS).losses
        report["overflow"][mode] = skips_overflow(ranks, mode)
    # 2 ranks with ZeRO 1, then one with DDP (another process), then 2 with ZeRO 2.
    start = Run(ranks, "zero1").go(0, 2)
    hand_over(folder / "from-two", *start.state(), ranks)
    end = Run(ranks, "zero2").load(*wait_for(folder / "from-one")).go(4, 6)
    report["changed_ranks"] = start.losses + end.losses
    groups = torch.distributed.distributed_c10d._world.pg_map
    report["timeouts"] = [group._get_backend(ranks.device).options._timeout.total_seconds() for group in groups]
    tensors, _ = end.state()
    weights |= {f"changed_ranks/{name}": tensor for name, tensor in tensors.items()}
    if ranks.rank == 0:
        save_file(weights, folder / "weights.safetensors")
    return report


def one_rank(ranks: dist.Ranks, folder: Path) -> dict:
    run = Run(ranks, "ddp").load(*wait_for(folder / "from-two"))
    for step in (2, 3):  # the global batch of two ranks
        run.losses.append(gan_step(run.G, run.D, [torch.cat([images(step, 0), images(step, 1)])]))
    hand_over(folder / "from-one", *run.state(), ranks)
    return {"changed_ranks": run.losses}


def hand_over(path: Path, tensors: dict[str, Tensor], scalars: dict, ranks: dist.Ranks) -> None:
    if ranks.rank == 0:
        path.with_suffix(".json").write_text(json.dumps(scalars))
        save_file(tensors, path.with_suffix(".partial"))
        path.with_suffix(".partial").rename(path)


def wait_for(path: Path) -> tuple[dict[str, Tensor], dict]:
    while not path.exists():
        time.sleep(0.1)
    return load_file(path), json.loads(path.with_suffix(".json").read_text())


if __name__ == "__main__":
    torch.set_num_threads(1)
    here = Path(sys.argv[1])
    group = dist.init("cpu")
    result = (two_ranks if group.world == 2 else one_rank)(group, here)
    if group.rank == 0:
        (here / f"report-{group.world}.json").write_text(json.dumps(result))
    dist.shutdown()
    sys.stdout.flush()
    os._exit(0)  # DeepSpeed's threads need not be waited for
