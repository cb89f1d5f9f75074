"""The training step of public implementations of the field beside ours, as shares of the rate of a matrix product.

No line of theirs is here: what is imported are the networks of clones that the user made (peers.md says how), and an
adapter does around them the step of that repository's training code, in its order, without the losses that need
pretrained networks. Sizes are those of the configurations. Beside our networks at the paper's width, base 128, a peer's
have theirs, 64 channels first; where ours are narrower, so are they.
"""

import hashlib
import importlib
import math
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import step
from benchmarks.baseline import condition
from benchmarks.cost import matrix_rate
from benchmarks.timing import Laps, interleave, rate, summary, synchronize
from mscgan.data.batch import Batch
from mscgan.dist import Ranks
from mscgan.errors import UserError
from mscgan.keys import Config

OURS = {"ours": "ddp", "plain-1": "plain-1"}  # the names that step.py has for them
STAGES = ("II", "joint")
BASE = ("joint", "ours")  # what ratios are to
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}  # the latter, of a CPU, counts no time of others


class Given(NamedTuple):
    """A batch as the peers take it: images (N, 3, H, W) in [-1, 1] and heatmaps (N, 18, H, W) in [0, 1], float32."""

    x: Tensor
    x_pose: Tensor
    y: Tensor
    y_pose: Tensor


def patn(networks: ModuleType, width: int, given: Given) -> Callable[[], dict]:
    """PATN's step: models/PATN.py, optimize_parameters, with the options of its README for Market-1501.

    Left out are the perceptual loss and the pool of earlier images. D's weights get gradients in G's update too,
    which nobody uses: that code does not freeze them.
    """
    device, norm = given.x.device, networks.get_norm_layer("batch")
    poses = torch.cat([given.x_pose, given.y_pose], 1)
    G = networks.PATNetwork([3, 36], 3, width, norm, use_dropout=True, n_blocks=9).to(device)
    G_optimizer = _adam(G)
    judges = []
    for beside in (given.x, given.y_pose):  # D_PP, D_PB
        D = networks.ResnetDiscriminator(
            3 + beside.shape[1], width, norm, use_dropout=True, n_blocks=3, use_sigmoid=True
        ).to(device)
        judges.append((D, beside, _adam(D)))

    def loss(D, image: Tensor, beside: Tensor, real: bool) -> Tensor:
        found = D(torch.cat([image, beside], 1))
        return 5 * F.binary_cross_entropy(found, torch.full_like(found, float(real)))

    def run() -> dict:
        fake = G([given.x, poses])
        G_optimizer.zero_grad()
        total = sum(loss(D, fake, beside, True) for D, beside, _ in judges) / 2 + 10 * F.l1_loss(fake, given.y)
        total.backward()
        G_optimizer.step()
        for D, beside, optimizer in judges:
            optimizer.zero_grad()
            ((loss(D, given.y, beside, True) + loss(D, fake.detach(), beside, False)) / 2).backward()
            optimizer.step()
        return {"total": total.detach()}

    return run


def pix2pixhd(networks: ModuleType, width: int, given: Given) -> Callable[[], dict]:
    """pix2pixHD's step: train.py and models/pix2pixHD_model.py, forward, with the options that it has by default.

    Its label map is what our generator gets: the source image and the target's heatmaps. Left out is the loss on VGG's
    features (--no_vgg_loss). As with PATN, D's weights get gradients in G's update too.
    """
    device, norm = given.x.device, networks.get_norm_layer("instance")
    label = torch.cat([given.x, given.y_pose], 1)
    G = networks.GlobalGenerator(21, 3, width, n_downsampling=4, n_blocks=9, norm_layer=norm).to(device)
    D = networks.MultiscaleDiscriminator(
        24, width, n_layers=3, norm_layer=norm, use_sigmoid=False, num_D=2, getIntermFeat=True
    ).to(device)
    G_optimizer, D_optimizer = _adam(G), _adam(D)

    def squares(scales: list[list[Tensor]], target: float) -> Tensor:
        return sum((features[-1] - target).square().mean() for features in scales)

    def run() -> dict:
        fake = G(label)
        of_fake = D(torch.cat([label, fake.detach()], 1))
        of_real = D(torch.cat([label, given.y], 1))
        of_G = D(torch.cat([label, fake], 1))
        features = sum(
            F.l1_loss(ours, real.detach())
            for scale, reals in zip(of_G, of_real, strict=True)
            for ours, real in zip(scale[:-1], reals[:-1], strict=True)
        )
        total = squares(of_G, 1.0) + 10 / 2 * features  # lambda_feat * (4 / (n_layers + 1)) / num_D
        G_optimizer.zero_grad()
        total.backward()
        G_optimizer.step()
        D_optimizer.zero_grad()
        ((squares(of_fake, 0.0) + squares(of_real, 1.0)) / 2).backward()
        D_optimizer.step()
        return {"total": total.detach()}

    return run


def _adam(network: torch.nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999))  # as both repositories have it


class Peer(NamedTuple):
    folder: str  # in the folder of clones
    url: str
    commit: str  # that the adapter was written for
    module: str  # that has the networks
    build: Callable[[ModuleType, int, Given], Callable[[], dict]]


PEERS = {
    "PATN": Peer(
        "Pose-Transfer", "https://github.com/tengteng95/Pose-Transfer", "5ec3d323260a105929b4cc0c9473ea38402049ec",
        "models.networks", patn,
    ),
    "pix2pixHD": Peer(
        "pix2pixHD", "https://github.com/NVIDIA/pix2pixHD", "5a2c87201c5957e2bf51d79b8acddb9cc1920b26",
        "models.networks", pix2pixhd,
    ),
}  # fmt: skip


@dataclass
class Case:
    """A way at work on one size. `flop`: those of one step; `seconds`: a step's, of each round, by clock."""

    way: str
    stage: str
    size: str
    base: int
    batch: int
    device: torch.device
    step: Callable[[], dict] | None = None
    flop: int = 0
    steps: int = 1  # of a round
    seconds: dict[str, list[float]] = field(default_factory=dict)
    finite: bool = True

    def start(self, build: Callable[[], Callable[[], dict]], at_least: float) -> None:
        """Builds the step, counts what the first one does, and times a second one: how many last `at_least` seconds."""
        self.step = build()
        with FlopCounterMode(display=False) as counter:
            self.step()
        self.flop = counter.get_total_flops()
        self.steps = math.ceil(at_least / self._timed(1)["wall"])

    def round(self) -> None:
        for clock, spent in self._timed(self.steps).items():
            self.seconds.setdefault(clock, []).append(spent)

    def _timed(self, steps: int) -> dict[str, float]:
        """Seconds a step, by clock."""
        synchronize(self.device)
        began = {name: clock() for name, clock in CLOCKS.items()}
        for _ in range(steps):
            terms = self.step()
        synchronize(self.device)
        spent = {name: (clock() - began[name]) / steps for name, clock in CLOCKS.items()}
        self.finite = self.finite and all(bool(torch.isfinite(value).all()) for value in terms.values())
        return spent if self.device.type == "cpu" else {"wall": spent["wall"]}


def networks_of(peer: Peer, clones: Path) -> tuple[ModuleType, dict[str, str]]:
    """The module of a peer's networks, and the SHA-256 of each file of the clone that importing it read.

    Raises:
        ImportError: there is no clone.
        Exception: what its files raise, as where something that they import is not installed.
    """
    root, package = (clones / peer.folder).resolve(), peer.module.split(".")[0]
    if not (root / Path(*peer.module.split("."))).with_suffix(".py").is_file():
        raise ImportError(f"not there; git clone {peer.url} {root} && git -C {root} checkout {peer.commit}")
    sys.path.insert(0, str(root))
    try:
        module = importlib.import_module(peer.module)
    finally:  # the next clone may have a package of the same name
        sys.path.remove(str(root))
        names = [name for name in sys.modules if name.split(".")[0] == package]
        files = [Path(file) for name in names if (file := getattr(sys.modules.pop(name), "__file__", None))]
    hashes = {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return module, dict(sorted(hashes.items()))


def measure(
    ranks: Ranks,
    out: Path,
    clones: Path,
    configs: list[Config],
    batches: list[int],
    rounds: int,
    seconds: float,
    keep: Callable[[dict], None] = lambda found: None,
) -> dict:
    """A row for each way and size, all float32, in rounds that change their order, a matrix product in each round.

    Args:
        batches: of each configuration, in pairs.
        seconds: that a way runs at least in a round.
        keep: called with the section so far after each way of each round.

    Raises:
        UserError: there are several ranks.
    """
    if ranks.world > 1:
        raise UserError(f"peers are measured by one process, and there are {ranks.world}; start it without a launcher")
    if ranks.device.type == "cuda":  # matrix products in TF32, as PyTorch's convolutions are by themselves
        torch.set_float32_matmul_precision("high")
    found, sources, failures = {}, {}, []
    for name, peer in PEERS.items():
        try:
            found[name], sources[name] = networks_of(peer, clones)
        except Exception as error:  # whatever files of others do
            reason = f"{error}".split("\n")[0]
            print(f"SKIPPED: the networks of {name}: {reason}", file=sys.stderr, flush=True)
            failures.append({"way": name, "error": reason})
    cases: list[Case] = []
    rates: dict[str, list[float]] = {}

    def multiply() -> None:
        for name in CLOCKS if ranks.device.type == "cpu" else ["wall"]:
            rates.setdefault(name, []).append(matrix_rate(ranks.device, torch.float32, clock=CLOCKS[name]))

    def section() -> dict:
        best = {name: max(found) for name, found in rates.items()}
        return {
            "status": "incomplete" if failures else "ok",
            "workload": {"precision": "fp32", "inputs": "on the device; the peers' drawn before", "peers": sources},
            "method": {
                "warm_up_steps": 2, "rounds": rounds, "seconds_a_round": seconds, "order": "ways in turn, alternating",
                "matrix_rate": "the best of all rounds",
            },
            "definition": "share: FLOPs of a step, useful or not, by torch's counter over the real step / its seconds "
            "/ the best rate of a float32 matrix product in the same run by the same clock; x ours: over the share of "
            "our joint step in the same round; CPU: by the process's CPU time, which has no waiting for others in it",
            "matrix_teraflops": {name: value / 1e12 for name, value in best.items()},
            "rows": rows(cases, best),
            "failures": failures,
        }  # fmt: skip

    multiply()
    for config, batch in zip(configs, batches, strict=True):
        now = []
        for case, build in _ways(config, batch, ranks, out, found):
            try:
                case.start(build, seconds)
            except UserError:
                raise
            except Exception as error:
                traceback.print_exc()
                text = f"{type(error).__name__}: {error}".split("\n")[0]
                failures.append({"way": case.way, "size": case.size, "error": text})
            else:
                now.append(case)
        cases += now
        turns = {f"{case.stage} {case.way}": case.round for case in now} | {"matrix product": multiply}
        interleave(turns, rounds, lambda: keep(section()))
        for case in now:
            case.step = None  # and the networks in it
    return section()


def _ways(
    config: Config, batch: int, ranks: Ranks, out: Path, peers: dict[str, ModuleType]
) -> list[tuple[Case, Callable[[], Callable[[], dict]]]]:
    """What builds each way's step: our stages, each of our ways, then the peers."""
    base, size = config.options().base, f"{config.data.height}x{config.data.width}"
    given = step.random_batch(config, batch, ranks.device, 0)

    def ours(stage: str, name: str):
        return lambda: step.build(name, config, stage, batch, ranks, Laps(ranks.device), out, people=0)

    def theirs(way: str, module: ModuleType):
        return lambda: PEERS[way].build(module, base // 2, inputs(given, config))

    ways = [(stage, way, ours(stage, name)) for stage in STAGES for way, name in OURS.items()]
    ways += [("", way, theirs(way, module)) for way, module in peers.items()]
    return [(Case(way, stage, size, base, batch, ranks.device), build) for stage, way, build in ways]


def inputs(batch: Batch, config: Config) -> Given:
    """What the peers take, drawn from what our steps take."""
    x, y = (
        condition(images, keypoints, batch.flip, config.data)
        for images, keypoints in ((batch.x, batch.x_keypoints), (batch.y, batch.y_keypoints))
    )
    return Given(x[:, :3].contiguous(), x[:, 3:].contiguous(), y[:, :3].contiguous(), y[:, 3:].contiguous())


def rows(cases: list[Case], matrix: dict[str, float]) -> list[dict]:
    """A row for each case that has been timed. matrix: FLOP/s of a matrix product, by clock."""
    bases = {case.size: case for case in cases if (case.stage, case.way) == BASE}
    return [_row(case, matrix, bases.get(case.size)) for case in cases if case.seconds]


def _row(case: Case, matrix: dict[str, float], base: Case | None) -> dict:
    words = (case.stage, case.size, f"base {case.base}", case.way, f"batch {case.batch}")
    metrics: dict[str, dict | None] = {"step_ms": {"median": 1000 * summary(case.seconds["wall"])["median"]}}
    for clock, seconds in case.seconds.items():
        suffix = "" if clock == "wall" else f"_{clock}"
        metrics[f"matrix_share{suffix}"] = rate(seconds, case.flop / matrix[clock])
        # Round by round, so that what changes between rounds is in both; one may lack the round that runs.
        pairs = list(zip(seconds, base.seconds.get(clock, []), strict=False)) if base else []
        ratios = [case.flop / mine / (base.flop / its) for mine, its in pairs]
        metrics[f"times_ours{suffix}"] = summary(ratios) if ratios else None
    return {
        "key": " ".join(word for word in words if word),
        "stage": case.stage, "size": case.size, "base": case.base, "precision": "fp32", "way": case.way,
        "batch": case.batch, "rounds": len(case.seconds["wall"]), "finite": case.finite,
        "gflop_per_pair": case.flop / case.batch / 1e9,
        "metrics": metrics,
    }  # fmt: skip
