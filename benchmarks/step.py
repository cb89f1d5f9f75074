"""A training step as mscgan/train.py does it, beside what users would run otherwise, in turn on the same device.

Ways of doing the step, by name:
    ddp, zero0 ... zero3     this project's, with that backend; "+compile" sets train.compile,
                             "+graphs" train.cuda_graphs
    plain-1                  baseline.PlainStep: eager float32 NCHW, one generator forward a step
    plain                    the same with two an adversarial step, as DCGAN's code has them; in stage II that runs a
                             frozen G1 twice too: 18.73 GFLOP a pair at 128x64 and base 32, where one takes 12.59
    compiled                 torch.compile + DDP + bf16 (float32 on a CPU) channels_last without our ops, one forward
    compiled-2               the same with two
Among several ranks all of these are in DistributedDataParallel.

All take the same uint8 images and keypoints, which lie on the device, and draw their inputs from them. Ours also moves
the average of the generators, as training does; the others have none. "loader" is `ddp` fed by the loader from shards.
"""

import gc
import math
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import cost
from benchmarks.baseline import PlainStep
from benchmarks.energy import Energy
from benchmarks.needs import SHARDS, missing, skip
from benchmarks.settings import changed
from benchmarks.timing import Laps, halving, interleave, rate, slowest, slowest_steps, summary, synchronize, together
from mscgan import costs, dist
from mscgan.data.batch import Batch
from mscgan.dist import Ranks
from mscgan.errors import UserError
from mscgan.keys import Config
from mscgan.prepare import prepare
from mscgan.state import State

PLAIN = {
    "plain-1": {"forwards": 1, "ddp": True},
    "plain": {"forwards": 2, "ddp": True},
    "compiled": {"forwards": 1, "compiled": True, "bf16": True, "channels_last": True, "ddp": True},
    "compiled-2": {"forwards": 2, "compiled": True, "bf16": True, "channels_last": True, "ddp": True},
}
BACKENDS = {"ddp": {"train.backend": "ddp"}, "loader": {"train.backend": "ddp"}} | {
    f"zero{zero}": {"train.backend": "deepspeed", "train.zero": zero} for zero in range(4)
}
OPTIONS = {"": {}, "compile": {"train.compile": True}, "graphs": {"train.cuda_graphs": True}}
NEEDS = {"loader": ("nvidia.dali", *SHARDS)} | {f"zero{zero}": ("deepspeed",) for zero in range(4)}  # packages
PHASES = ("data wait", "prepare", "G forward", "D", "G backward", "optimizer", "EMA")


class Timed:
    """An engine whose calls note in `laps` the phase that they end; everything else is the engine's own.

    makes: whether it trains what makes images, G in the phases' names; the others are D.
    """

    def __init__(self, engine, makes: bool, laps: Laps):
        self._engine, self._makes, self._laps = engine, makes, laps

    def __getattr__(self, name: str):
        return getattr(self._engine, name)

    def __call__(self, *args):
        result = self._engine(*args)
        self._laps.lap("G forward" if self._makes else "D")
        return result

    def backward(self, loss) -> None:
        self._engine.backward(loss)
        # This lap includes what came since the last: the losses, and in G's case D's forward.
        self._laps.lap("G backward" if self._makes else "D")

    def step(self) -> None:
        self._engine.step()
        self._laps.lap("optimizer")


def random_batch(config: Config, batch: int, device: torch.device, seed: int) -> Batch:
    """Noise images and random poses, a joint in six missing, on the device."""
    generator = torch.Generator().manual_seed(seed)
    height, width = config.data.height, config.data.width

    def images():
        return torch.randint(256, (batch, height, width, 3), dtype=torch.uint8, generator=generator).to(device)

    def keypoints():
        points = torch.rand(batch, 18, 2, generator=generator) * torch.tensor([width - 1.0, height - 1.0])
        points[torch.rand(batch, 18, generator=generator) < 1 / 6] = -1
        return points.to(device)

    flip = torch.rand(batch, generator=generator) < config.data.flip
    return Batch(images(), images(), keypoints(), keypoints(), flip.to(device), torch.arange(batch))


def our_step(
    config: Config, stage: str, batch: int, ranks: Ranks, laps: Laps, batches: Callable[[], Batch]
) -> Callable:
    """One step of the loop of mscgan/train.py as a function that returns its loss terms."""
    with ranks.device:  # where drawing the first weights takes no time to speak of; on a CPU they take seconds
        state = State(config, ranks.device, batch)
    state.enter(stage)
    made = {module for name in state.family.MAKES for module in state.networks[name].modules()}
    state.engines = {name: Timed(engine, engine.module in made, laps) for name, engine in state.engines.items()}
    drawn: list[str] = []

    def step() -> dict:
        nonlocal drawn
        laps.lap("")
        given = batches()
        laps.lap("data wait")
        inputs = prepare(given, config.data, config.train.precision)
        for name in drawn:  # what the last step asked for; left to this one, it would count as another phase
            getattr(inputs, name)
        laps.lap("prepare")
        terms = state.step([inputs])
        drawn = list(vars(inputs))
        state.follow(batch * ranks.world)
        laps.lap("EMA")
        return terms

    return step


def build(
    way: str, config: Config, stage: str, batch: int, ranks: Ranks, laps: Laps, out: Path, people: int
) -> Callable:
    """The step of the named way."""
    given = random_batch(config, batch, ranks.device, ranks.rank)
    if way in PLAIN:
        options = dict(PLAIN[way])
        options["bf16"] = options.get("bf16", False) and ranks.device.type == "cuda"
        plain = PlainStep(config, stage, ranks.device, **options, lap=laps.lap)

        def step() -> dict:
            laps.lap("")
            return {"total": plain(given)}

        return step
    name, _, option = way.partition("+")
    if name not in BACKENDS or option not in OPTIONS:
        raise UserError(
            f"a step of kind {way!r}; choose among {', '.join([*BACKENDS, *PLAIN])}, ours also with +compile or +graphs"
        )
    config = changed(config, BACKENDS[name] | OPTIONS[option])
    if name != "loader":
        return our_step(config, stage, batch, ranks, laps, lambda: given)
    from benchmarks.shards_cache import shards as cached_shards
    from mscgan.data.loader import Loader

    shards = cached_shards(out, config.data.height, config.data.width, people, ranks)
    source = Loader(
        shards,
        batch,
        ranks.rank,
        ranks.world,
        0,
        config.data.flip,
        ranks.device,
        config.data.decode,
        config.data.threads or dist.cores(ranks),
    )
    return our_step(config, stage, batch, ranks, laps, lambda: next(source))


class Run:
    """A way at work: its step, its laps, what its windows took. Times are those of the slowest rank."""

    def __init__(self, way: str, ranks: Ranks, make: Callable[[Laps], Callable], warm_up: int):
        self.way, self.ranks, self.laps = way, ranks, Laps(ranks.device)
        self.steps: list[dict[str, float]] = []
        self.wall: list[float] = []  # seconds a step, of each window
        self.finite = True
        self.energy: dict | None = None
        on_gpu = ranks.device.type == "cuda"
        before = torch.cuda.memory_allocated() if on_gpu else 0
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        self.step = make(self.laps)
        for _ in range(warm_up):
            self.step()
        synchronize(ranks.device)
        self.laps.seconds()
        # Ways made before hold their weights meanwhile: only the memory that came with this way counts.
        self.peak_memory = int(slowest([torch.cuda.max_memory_allocated() - before])[0]) if on_gpu else None

    def window(self, steps: int) -> None:
        synchronize(self.ranks.device)
        with together():
            began = time.perf_counter()
            for _ in range(steps):
                terms = self.step()
            synchronize(self.ranks.device)
            spent = (time.perf_counter() - began) / steps
        self.wall += slowest([spent])
        self.steps += slowest_steps(self.laps.seconds())
        (infinite,) = dist.all_any(not all(bool(torch.isfinite(value).all()) for value in terms.values()))
        self.finite = self.finite and not infinite

    def measure_energy(self, seconds: float) -> None:
        """Of at least `seconds` of steps, as many on every rank; of the rank that takes most."""
        steps = max(1, math.ceil(seconds / summary(self.wall)["median"])) if self.ranks.world == 1 else 20
        synchronize(self.ranks.device)
        with Energy(self.ranks.device) as energy:
            for _ in range(steps):
                self.step()
            synchronize(self.ranks.device)
        self.laps.seconds()
        found = energy.result()
        (unknown,) = dist.all_any(found is None)
        if not unknown:
            self.energy = found | {"joules": slowest([found["joules"]])[0], "steps": steps}


def measure(
    ranks: Ranks,
    out: Path,
    config: Config,
    stage: str,
    ways: list[str],
    batch: int,
    rounds: int,
    steps: int,
    warm_up: int = 3,
    energy_seconds: float = 0.0,
    people: int = 40,
    matrix_rate: float | None = None,
    keep: Callable[[dict], None] = lambda found: None,
) -> dict:
    """A row for each way, of a configuration and stage. The batch is halved for all where memory does not suffice.

    With a single rank a way that fails is noted, and the others are measured. Among several ranks it raises, as the
    others would wait for the rank that failed. A way whose packages are not installed is skipped.

    Args:
        keep: called with what there is so far after each window of each way.
    """
    counted = {
        "gflop_per_pair": costs.step_gflop(config, stage),
        "counted": "torch.utils.flop_counter over one step",
        "parameters": {
            name: sum(layer.parameters for layer in layers) for name, layers in costs.layers(config).items()
        },
    }
    ways, skipped = _possible(ways)

    def at(batch: int) -> dict:
        runs: list[Run] = []
        found = {"rows": [], "failures": list(skipped)}

        def kept() -> None:
            found["rows"] = [_row(run, config, stage, batch, matrix_rate, counted) for run in runs]
            keep(found)

        try:
            for way in ways:
                make = lambda laps, way=way: build(way, config, stage, batch, ranks, laps, out, people)  # noqa: E731
                try:
                    run = Run(way, ranks, make, warm_up)
                    run.window(steps)  # the first round; should time run out, what was made has been measured
                except (UserError, torch.OutOfMemoryError):
                    raise
                except Exception as error:
                    if ranks.world > 1:
                        raise
                    traceback.print_exc()
                    found["failures"].append({"way": way, "error": f"{type(error).__name__}: {error}".split("\n")[0]})
                else:
                    runs.append(run)
                kept()
            interleave({run.way: lambda run=run: run.window(steps) for run in runs}, rounds, kept, first=1)
            for run in runs if energy_seconds else []:
                if run.way != "loader":
                    run.measure_energy(energy_seconds)
                    kept()
            return found
        finally:
            runs.clear()
            gc.collect()
            torch._dynamo.reset()
            if ranks.device.type == "cuda":
                torch.cuda.empty_cache()

    found, halvings = halving(batch, at)
    return found | {"failures": halvings + found["failures"]}


def _possible(ways: list[str]) -> tuple[list[str], list[dict]]:
    """The ways whose packages are installed, and an entry for each of the others."""
    skipped = []
    for way in ways:
        if packages := missing(NEEDS.get(way.partition("+")[0], ())):
            skip(f"the way {way!r} of a step", packages)
            skipped.append({"way": way, "error": f"{packages}: not installed"})
    return [way for way in ways if all(way != entry["way"] for entry in skipped)], skipped


def _row(run: Run, config: Config, stage: str, batch: int, matrix_rate: float | None, counted: dict) -> dict:
    ranks, size, base = run.ranks, f"{config.data.height}x{config.data.width}", config.options().base
    precision = config.train.precision
    if run.way in PLAIN:
        precision = "bf16" if PLAIN[run.way].get("bf16") and ranks.device.type == "cuda" else "fp32"
    pairs = batch * ranks.world
    speed = rate(run.wall, pairs)
    teraflops = speed["median"] * counted["gflop_per_pair"] / 1000 / ranks.world
    peak = cost.peak(ranks.device)
    times = summary([step["step"] for step in run.steps])
    phases = {}
    for name in PHASES:
        if any(name in step for step in run.steps):
            phases[name] = sum(step.get(name, 0.0) for step in run.steps) / len(run.steps)
    metrics = {
        "pairs_per_second": speed,
        "step_ms": {
            key: None if times[key] is None else 1000 * times[key]
            for key in ("median", "mean", "p5", "p95", "p99", "std", "ci95")
        },
        "teraflops": teraflops,
        "matrix_share": teraflops * 1e12 / matrix_rate if matrix_rate else None,
        "peak_share": teraflops * 1e12 / peak if peak else None,
        "peak_memory_bytes": run.peak_memory,
        "data_wait_share": phases["data wait"] / times["mean"] if run.way == "loader" else None,
        "joules_per_pair": run.energy["joules"] / (run.energy["steps"] * batch) if run.energy else None,
    }
    return {
        "key": f"{stage} {size} base {base} {precision} {run.way} batch {batch}",
        "stage": stage, "size": size, "base": base, "precision": precision, "way": run.way,
        "batch": batch, "global_batch": pairs, "ranks": ranks.world, "rounds": len(run.wall),
        "data": "loader" if run.way == "loader" else "on the device",
        "finite": run.finite,
        "metrics": metrics,
        "phases_ms": {name: 1000 * seconds for name, seconds in phases.items()},
        "energy": run.energy,
    } | counted  # fmt: skip
