"""Measures throughput, and compares two measurements.

    python benchmarks/run_throughput.py {data,ops,step,scaling,checkpoint,all} --out DIR [--quick]
    python benchmarks/run_throughput.py compare A/record.json B/record.json

Each run writes DIR/RUN/{record.json, report.md, *.png}. Started by launch/submit.py --job throughput or torchrun it
measures on all ranks. Exit codes: 0 done, 1 a section failed or a comparison found a regression, 2 a user's mistake.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import checkpoint, compare, cost, data, ops, plots, projection, record, report, scaling, step
from mscgan import costs, dist
from mscgan.config import STAGES, load
from mscgan.errors import UserError, run

SECTIONS = ("data", "ops", "step", "scaling", "checkpoint")


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
    for name in SECTIONS if a.command == "all" else [a.command]:
        if ranks.rank == 0:
            print(f"measuring {name}", file=sys.stderr, flush=True)
        record.add(document, name, lambda name=name: MEASURE[name](a, ranks), alone=ranks.world == 1)
        if ranks.rank == 0:
            record.write(document, folder)
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


def _data(a, ranks) -> dict:
    rounds, seconds = (3, 1.0) if a.quick else (5, 5.0)
    return data.measure(ranks, a.out, _sizes(a.sizes), a.people, a.images, a.rounds or rounds, a.seconds or seconds)


def _ops(a, ranks) -> dict:
    on_gpu = ranks.device.type == "cuda"
    rounds, seconds = (3, 0.1) if a.quick else (7, 0.3)
    megabytes = a.megabytes or (2048 if on_gpu else 48)
    dtype = torch.bfloat16 if on_gpu else torch.float32
    return ops.measure(ranks.device, dtype, _sizes(a.sizes)[-1], megabytes, a.rounds or rounds, a.seconds or seconds)


def _step(a, ranks) -> dict:
    on_gpu = ranks.device.type == "cuda"
    rounds, steps = (4, 5 if on_gpu else 2) if a.quick else (10, 10 if on_gpu else 3)
    matrix = cost.matrix_rate(ranks.device, torch.bfloat16 if on_gpu else torch.float32)
    rows, failures = [], []
    for preset in a.configs:
        for precision in a.precisions:
            config = load(preset, [f"train.precision={precision}", *a.set])
            for stage in _stages(a, config):
                batch = a.batch or _batch(config, on_gpu)
                seconds = a.energy_seconds if on_gpu else 0.0
                # The plain ways have a precision of their own: they are measured once.
                ways = [way for way in a.ways if precision == a.precisions[0] or way not in step.PLAIN]
                found = step.measure(
                    ranks, a.out, config, stage, ways, batch, a.rounds or rounds, a.steps or steps,
                    energy_seconds=seconds, people=a.people, matrix_rate=matrix,
                )  # fmt: skip
                rows += found["rows"]
                failures += found["failures"]
    return {
        "status": "incomplete" if any("way" in failure for failure in failures) else "ok",
        "workload": {"configs": a.configs, "set": a.set, "weights": "float32", "average": "ours only", "seed": 0},
        "method": {
            "warm_up_steps": 3, "rounds": a.rounds or rounds, "steps_a_round": a.steps or steps,
            "order": "ways in turn, alternating",
            "timer": "CUDA events within a step, wall clock a round" if on_gpu else "wall clock",
            "sync": "at the ends of a round",
        },
        "definition": "pairs_per_second: global batch / wall time of a step; TFLOP/s by the GFLOP a pair that each "
        "row holds, the generator counted once a step also where it runs twice",
        "matrix_teraflops": matrix / 1e12,
        "rows": rows,
        "failures": failures,
    }  # fmt: skip


def _scaling(a, ranks) -> dict:
    on_gpu = ranks.device.type == "cuda"
    config = load(a.configs[-1], [f"train.precision={a.precisions[0]}", *a.set])
    batch = a.batch or _batch(config, on_gpu)
    rounds, steps = (3, 2) if a.quick else (10, 5)
    rounds, steps, stage = a.rounds or rounds, a.steps or steps, _stages(a, config)[-1]
    return scaling.measure(ranks, a.out, config, stage, a.scaling_way, batch, rounds, steps, a.ranks)


def _checkpoint(a, ranks) -> dict:
    config = load(a.configs[-1], [f"train.precision={a.precisions[0]}", *a.set])
    backends = {name: step.BACKENDS[name] for name in ("ddp", "zero1")}
    return checkpoint.measure(ranks, a.out, config, backends, a.rounds or (2 if a.quick else 5))


MEASURE = {"data": _data, "ops": _ops, "step": _step, "scaling": _scaling, "checkpoint": _checkpoint}


def _project(a, section: dict) -> dict:
    config = load(a.configs[-1], a.set)
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
    a.configs = a.configs or (["market1501", "deepfashion"] if on_gpu else ["demo"])
    # float32 first: DeepSpeed keeps its autocast dtype for the whole process.
    a.precisions = sorted(a.precisions or (["bf16"] if on_gpu else ["fp32"]), reverse=True)
    quick = ["ddp", "zero1", "loader", "plain", *(["compiled"] if on_gpu else [])]
    every = "ddp ddp+compile zero0 zero1 zero2 zero3 loader plain plain-1 compiled compiled-2".split()
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--out", type=Path, required=True, metavar="DIR", help="where records and shards go")
    common.add_argument("--quick", action="store_true", help="fewer repeats: minutes instead of an hour")
    common.add_argument("--rounds", type=int, default=0, help="repeats of each measurement")
    common.add_argument("--seconds", type=float, default=0.0, help="of one measurement of data or ops")
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
        "--ways", nargs="+", metavar="WAY", help="of a step: ddp, zero1, loader, plain ... (benchmarks/step.py)"
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
    comparison = commands.add_parser("compare", help="the ratios of two records; exit code 1 on a regression")
    comparison.add_argument("before", type=Path, metavar="A", help="record.json, or its folder")
    comparison.add_argument("after", type=Path, metavar="B")
    comparison.add_argument("--tolerance", type=float, default=0.05, help="worse by more is a regression (0.05)")
    return parser


MEASURE_HELP = {
    "data": "decoded images/s of the loader and of others",
    "ops": "the fused ops against eager and torch.compile",
    "step": "the training step, its phases, memory and energy",
    "scaling": "weak and strong scaling over the ranks there are",
    "checkpoint": "how long saving and loading take",
}


if __name__ == "__main__":
    run(main)
