"""Measures throughput, and compares two measurements.

    python benchmarks/run_throughput.py {data,ops,step,profile,scaling,checkpoint,all} --out DIR [--quick]
    python benchmarks/run_throughput.py peers --peers CLONES --out DIR      (benchmarks/peers.md)
    python benchmarks/run_throughput.py compare A/record.json B/record.json

Each run writes DIR/RUN/record.json after each thing that it has measured, and report.md and *.png at its end. `ops`,
and of `step` and `profile` the ways ddp, plain, plain-1 and compiled, need torch, Triton and numpy alone. What needs
more is skipped where that is not installed, which is said. Started by launch/submit.py --job throughput or torchrun it
measures on all ranks. Exit codes: 0 done, 1 a section failed or was skipped or a comparison found a regression, 2 a
user's mistake.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import compare, cost, ops, peers, plots, profiled, projection, record, report, scaling, step
from benchmarks.needs import SHARDS, missing, skip
from benchmarks.settings import load
from mscgan import costs, dist
from mscgan.arguments import Parser
from mscgan.errors import UserError, run
from mscgan.keys import STAGES
from mscgan.paths import a_path

SECTIONS = ("data", "ops", "step", "profile", "scaling", "checkpoint")
NEEDS = {"data": SHARDS, "checkpoint": ("safetensors",)}  # packages without which a section has nothing to measure


def main() -> int:
    a = _parser().parse_args()
    if a.command == "compare":
        return compare.main(a.before, a.after, a.tolerance)
    ranks = dist.init()
    torch.backends.cudnn.benchmark = True  # shapes never change
    _defaults(a, ranks)
    arguments = {name: str(value) if isinstance(value, Path) else value for name, value in vars(a).items()}
    document = record.new(arguments, seed=0)
    folder = a.out / dist.from_rank_0(document["run_id"])

    def written() -> None:
        if ranks.rank == 0:
            record.write(document, folder)

    written()
    for name in SECTIONS if a.command == "all" else [a.command]:
        if ranks.rank == 0:
            print(f"measuring {name}", file=sys.stderr, flush=True)
        if packages := missing(NEEDS.get(name, ())):
            skip(f"the section {name!r}", packages)
            document["sections"][name] = {"status": "skipped", "error": f"{packages}: not installed", "rows": []}
            continue
        record.add(document, name, lambda keep, name=name: MEASURE[name](a, ranks, keep), ranks.world == 1, written)
    complete = record.finish(document)
    if ranks.rank == 0:
        if document["sections"].get("scaling", {}).get("status") == "ok":
            document["projection"] = _project(a, document["sections"]["scaling"])
        record.write(document, folder)
        text = report.markdown(document, plots.plot(document, folder))
        (folder / "report.md").write_text(text)
        print(text)
        print(f"written: {folder}")
    dist.barrier()
    return 0 if complete else 1


def _data(a, ranks, keep) -> dict:
    from benchmarks import data

    rounds, seconds = (3, 1.0) if a.quick else (5, 5.0)
    sizes = _sizes(a.sizes)
    return data.measure(ranks, a.out, sizes, a.people, a.images, a.rounds or rounds, a.seconds or seconds, keep)


def _ops(a, ranks, keep) -> dict:
    on_gpu = ranks.device.type == "cuda"
    rounds, seconds = (3, 0.1) if a.quick else (7, 0.3)
    megabytes = a.megabytes or (2048 if on_gpu else 48)
    dtype, size = torch.bfloat16 if on_gpu else torch.float32, _sizes(a.sizes)[-1]
    return ops.measure(ranks.device, dtype, size, megabytes, a.rounds or rounds, a.seconds or seconds, keep)


def _step(a, ranks, keep) -> dict:
    on_gpu = ranks.device.type == "cuda"
    rounds, steps = (4, 5 if on_gpu else 2) if a.quick else (10, 10 if on_gpu else 3)
    rounds, steps = a.rounds or rounds, a.steps or steps
    matrix = cost.matrix_rate(ranks.device, torch.bfloat16 if on_gpu else torch.float32)
    section = {
        "workload": {"configs": a.configs, "set": a.set, "weights": "float32", "average": "ours only", "seed": 0},
        "method": {
            "warm_up_steps": 3, "rounds": rounds, "steps_a_round": steps,
            "order": "ways in turn, alternating",
            "timer": "CUDA events within a step, wall clock a round" if on_gpu else "wall clock",
            "sync": "at the ends of a round",
        },
        "definition": "pairs_per_second: global batch / wall time of a step; TFLOP/s by the GFLOP a pair that each "
        "row holds, the generator counted once a step also where it runs twice; times are the slowest rank's",
        "matrix_teraflops": matrix / 1e12,
        "rows": [],
        "failures": [],
    }  # fmt: skip

    def joined(found: dict) -> dict:
        return section | {key: section[key] + found[key] for key in ("rows", "failures")}

    for preset in a.configs:
        for precision in a.precisions:
            config = load(preset, a.set, precision)
            for stage in _stages(a, config):
                # The plain ways have a precision of their own: they are measured once.
                ways = [way for way in a.ways if precision == a.precisions[0] or way not in step.PLAIN]
                found = step.measure(
                    ranks, a.out, config, stage, ways, a.batch or _batch(config, on_gpu), rounds, steps,
                    energy_seconds=a.energy_seconds if on_gpu else 0.0, people=a.people, matrix_rate=matrix,
                    keep=lambda found: keep(joined(found)),
                )  # fmt: skip
                section = joined(found)
    return section | {"status": "incomplete" if any("way" in failure for failure in section["failures"]) else "ok"}


def _profile(a, ranks, keep) -> dict:
    on_gpu = ranks.device.type == "cuda"
    config = load(a.configs[-1], a.set, a.precisions[0])
    batch, stage = a.batch or _batch(config, on_gpu), _stages(a, config)[-1]
    ways = [way for way in a.ways if way != "loader"] if a.command == "profile" else ["ddp"]
    return profiled.measure(ranks, a.out, config, stage, ways, batch, a.steps or 1, a.people, keep)


def _scaling(a, ranks, keep) -> dict:
    on_gpu = ranks.device.type == "cuda"
    config = load(a.configs[-1], a.set, a.precisions[0])
    batch = a.batch or _batch(config, on_gpu)
    rounds, steps = (3, 2) if a.quick else (10, 5)
    rounds, steps, stage = a.rounds or rounds, a.steps or steps, _stages(a, config)[-1]
    return scaling.measure(ranks, a.out, config, stage, a.scaling_way, batch, rounds, steps, a.ranks, keep)


def _checkpoint(a, ranks, keep) -> dict:
    from benchmarks import checkpoint

    config = load(a.configs[-1], a.set, a.precisions[0])
    backends = {name: step.BACKENDS[name] for name in ("ddp", "zero1")}
    return checkpoint.measure(ranks, a.out, config, backends, a.rounds or (2 if a.quick else 5), keep)


def _peers(a, ranks, keep) -> dict:
    on_gpu = ranks.device.type == "cuda"
    configs = [load(preset, a.set, "fp32") for preset in a.configs]
    batches = [a.batch or _batch(config, on_gpu) for config in configs]
    rounds, seconds = a.rounds or (4 if a.quick else 8), a.seconds or 1.0
    return peers.measure(ranks, a.out, a.peers, configs, batches, rounds, seconds, keep)


MEASURE = {
    "data": _data,
    "ops": _ops,
    "step": _step,
    "profile": _profile,
    "scaling": _scaling,
    "checkpoint": _checkpoint,
    "peers": _peers,
}


def _project(a, section: dict) -> dict:
    config = load(a.configs[-1], a.set, a.precisions[0])
    trained = costs.trained_parameters(config, _stages(a, config)[-1])
    travels = (
        4 if a.scaling_way == "ddp" or a.precisions[0] == "fp32" else 2
    )  # DDP reduces float32, ours with ZeRO 16 bits
    return projection.of_section(section, trained, travels, a.nodes, a.gpus_per_node, a.network)


def _stages(a, config) -> list[str]:
    """Those asked for that the family has."""
    stages = [stage for stage in a.stages if stage in STAGES[config.family]]
    if not stages:
        raise UserError(f"family={config.family} has none of --stages {' '.join(a.stages)}")
    return stages


def _batch(config, on_gpu: bool) -> int:
    """What fills the device: 16 pairs of 256x256 on a GPU, as many pixels of other sizes; 16 pairs on a CPU."""
    return 16 * 256 * 256 // (config.data.height * config.data.width) if on_gpu else 16


def _defaults(a: argparse.Namespace, ranks) -> None:
    """What was not given, by the device: the paper's sizes on a GPU, the demo on a CPU."""
    on_gpu = ranks.device.type == "cuda"
    every_size = ["demo", "market1501"] if a.command == "peers" else ["demo"]
    a.configs = a.configs or (["market1501", "deepfashion"] if on_gpu else every_size)
    # float32 first: DeepSpeed keeps its autocast dtype for the whole process.
    a.precisions = sorted(a.precisions or (["bf16"] if on_gpu else ["fp32"]), reverse=True)
    quick = ["ddp", "zero1", "loader", "plain-1", *(["compiled"] if on_gpu else [])]
    every = "ddp ddp+compile zero0 zero1 zero2 zero3 loader plain-1 plain compiled compiled-2".split()
    every += ["ddp+graphs"] if on_gpu else []
    a.ways = a.ways or (quick if a.quick else every)
    if a.people is None:
        a.people = 40 if a.quick else 100


def _sizes(texts: list[str]) -> list[tuple[int, int]]:
    try:
        return [tuple(int(number) for number in text.split("x", 1)) for text in texts]
    except ValueError:
        raise UserError(f"--sizes {' '.join(texts)}: give HEIGHTxWIDTH, for example 128x64") from None


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    common = Parser(add_help=False)
    common.add_argument("--out", type=a_path, required=True, metavar="DIR", help="where records and shards go")
    common.add_argument("--quick", action="store_true", help="fewer repeats: minutes instead of an hour")
    common.add_argument("--rounds", type=int, default=0, help="repeats of each measurement")
    common.add_argument("--seconds", type=float, default=0.0, help="of one measurement of data, ops, peers")
    common.add_argument(
        "--sizes", nargs="+", default=["128x64", "256x256"], metavar="HxW", help="of data; ops takes the last"
    )
    common.add_argument("--people", type=int, help="synthetic people in the shards, 8 images each")
    common.add_argument("--images", type=int, default=64, help="a batch of `data`")
    common.add_argument("--megabytes", type=int, default=0, help="that a forward pass of `ops` moves")
    common.add_argument("--configs", nargs="+", metavar="PRESET", help="of step; scaling and checkpoint take the last")
    common.add_argument("--set", nargs="+", default=[], metavar="key=value", help="changes of the configuration")
    common.add_argument("--stages", nargs="+", default=["I", "II", "joint"], choices=("I", "II", "joint"))
    common.add_argument("--precisions", nargs="+", choices=("bf16", "fp16", "fp32"))
    common.add_argument(
        "--ways", nargs="+", metavar="WAY", help="of a step: ddp, zero1, loader, plain-1 ... (benchmarks/step.py)"
    )
    common.add_argument("--batch", type=int, default=0, help="pairs a rank")
    common.add_argument("--steps", type=int, default=0, help="a round of step and scaling")
    common.add_argument("--energy-seconds", type=float, default=10.0, help="of steps for J/pair; 0: not measured")
    common.add_argument("--ranks", type=int, default=0, help="of scaling, where no launcher started them")
    common.add_argument("--scaling-way", default="ddp", help="of a step, for scaling")
    common.add_argument("--nodes", nargs="+", type=int, default=[1, 2, 4, 8], help="of the projection")
    common.add_argument("--gpus-per-node", type=int, default=8, help="of the projection")
    common.add_argument("--network", type=float, default=50.0, help="GB/s of bus bandwidth, of the projection")
    for name in (*SECTIONS, "all"):
        commands.add_parser(name, parents=[common], help="all sections" if name == "all" else MEASURE_HELP[name])
    beside = commands.add_parser("peers", parents=[common], help=MEASURE_HELP["peers"])
    beside.add_argument(
        "--peers", type=a_path, required=True, metavar="CLONES", help="the folder that has their clones"
    )
    comparison = commands.add_parser("compare", help="the ratios of two records; exit code 1 on a regression")
    comparison.add_argument("before", type=a_path, metavar="A", help="record.json, or its folder")
    comparison.add_argument("after", type=a_path, metavar="B")
    comparison.add_argument("--tolerance", type=float, default=0.05, help="worse by more is a regression (0.05)")
    return parser


MEASURE_HELP = {
    "data": "decoded images/s of the loader and of others",
    "ops": "the fused ops against eager and torch.compile",
    "step": "the training step, its phases, memory and energy",
    "profile": "which kernels a step of the last stage spends its time in",
    "scaling": "weak and strong scaling over the ranks there are",
    "checkpoint": "how long saving and loading take",
    "peers": "the step beside that of public implementations",
}


if __name__ == "__main__":
    run(main)
