"""The bars that this project holds on a GPU, from the records under a folder: measured, wanted, met.

    python benchmarks/gpu_checks.py OUT [--compiled 1.0 ...]      at any time; run_gpu_checks.sh prints it by itself

Exit code 0 if all are met, else 1. What is not measured, or not yet, counts as not met. Ours is `zero1`, with which
training runs unless told otherwise, or where DeepSpeed is not installed `ddp`; the table says which.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import record
from mscgan import files
from mscgan.arguments import Parser
from mscgan.errors import UserError, run
from mscgan.paths import a_path

OURS = ("zero1", "ddp")
OPS = {
    "pyramid": ("forward", "forward+backward"),
    "condition": ("forward",),
    "bias_act": ("forward", "forward+backward"),
    "bias_act + residual": ("forward", "forward+backward"),
    "masked_l1": ("forward", "forward+backward"),
}
LIMITS = {
    "copy-share": (0.85, "an op's share of the copy rate"),
    "op-compiled": (1.0, "an op's speed, times torch.compile's"),
    "matrix-share": (0.5, "the joint step's share of the bf16 matrix rate"),
    # Eager float32 in TF32 has half the matrix rate of bf16. `plain` makes 4,238 GFLOP where a step takes 3,222.
    "plain-1": (1.9, "the joint step's speed, times eager float32 with one generator forward"),
    "plain": (2.5, "the same with two"),
    # Where three quarters of a step are cuDNN's convolutions, which both run, both land near the same time.
    "compiled": (0.97, "the joint step's speed, times torch.compile's; more where fusion pays"),
    "data-wait": (0.01, "of the joint step at most"),
    "zero1-ddp": (0.95, "the speed of ZeRO-1, times DDP's"),
}


@dataclass(frozen=True)
class Bar:
    name: str
    measured: float | None
    wanted: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        if self.measured is None:
            return False
        return self.measured <= self.wanted if self.at_most else self.measured >= self.wanted


def bars(records: list[dict], limits: dict[str, float]) -> list[Bar]:
    """Every bar, from the sections `ops` and `step` of the records. Ratios are taken within one record.

    limits: by the names in LIMITS.
    """
    ops = {}
    for document in records:
        ops |= {row["key"]: row["metrics"] for row in document["sections"].get("ops", {}).get("rows", [])}
    found = []
    for op, passes in OPS.items():
        for which in passes:
            metrics = ops.get(f"{op} {which} ours", {})
            found.append(Bar(f"{op}, {which}: share of the copy rate", metrics.get("copy_share"), limits["copy-share"]))
            found.append(
                Bar(f"{op}, {which}: times torch.compile's", metrics.get("times_compiled"), limits["op-compiled"])
            )
    steps = _steps(records)
    ours = next((way for way in OURS if any(way in rows for rows in steps)), OURS[0])
    share = next((rows[ours]["metrics"]["matrix_share"] for rows in steps if ours in rows), None)
    wait = next((rows["loader"]["metrics"]["data_wait_share"] for rows in steps if "loader" in rows), None)
    found.append(Bar(f"joint step, {ours}: share of the bf16 matrix rate", share, limits["matrix-share"]))
    for way, name in (
        ("plain-1", "eager fp32 NCHW, one generator forward"),
        ("plain", "eager fp32 NCHW, two generator forwards"),
        ("compiled", "torch.compile + DDP + bf16 without our ops"),
    ):
        above, ratio = _ratio(steps, OURS, way)
        found.append(Bar(f"joint step, {above}: times {name}", ratio, limits[way]))
    found.append(Bar("joint step, loader: data wait, share of the step", wait, limits["data-wait"], at_most=True))
    found.append(Bar("joint step: ZeRO-1, times DDP", _ratio(steps, ("zero1",), "ddp")[1], limits["zero1-ddp"]))
    return found


def _ratio(steps: list[dict[str, dict]], above: tuple[str, ...], below: str) -> tuple[str, float | None]:
    """Pairs/s of the first way of `above` that a record has beside `below`, over below's; and which way that is."""
    for rows in steps:
        rates = {way: record.value(row["metrics"]["pairs_per_second"]) for way, row in rows.items()}
        way = next((way for way in above if way in rates), None)
        if way and below in rates:
            return way, rates[way] / rates[below]
    return above[0], None


def _steps(records: list[dict]) -> list[dict[str, dict]]:
    """The rows of the joint step by way, for each record that has any."""
    found = [
        {row["way"]: row for row in document["sections"].get("step", {}).get("rows", []) if row["stage"] == "joint"}
        for document in records
    ]
    return [rows for rows in found if rows]


def states(records: list[dict]) -> list[str]:
    """What became of each section, a line each."""
    lines = []
    for document in records:
        for name, section in document["sections"].items():
            rounds = [row["rounds"] for row in section["rows"] if "rounds" in row]
            of = f", {min(rounds)} of {section['method']['rounds']} rounds" if rounds else ""
            status = {"running": "not over"}.get(section["status"], section["status"])
            why = f" ({section['error']})" if "error" in section else ""
            lines.append(f"- {name}: {status}{why}, {len(section['rows'])} rows{of}")
            lines += [f"  - {failure.get('way', failure.get('op', 'batch'))}: {failure['error']}"
                      for failure in section.get("failures", [])]  # fmt: skip
    return lines


def table(found: list[Bar]) -> str:
    """The bars as Markdown."""
    lines = ["| bar | measured | wanted | met |", "| --- | --- | --- | --- |"]
    for bar in found:
        measured = "not measured" if bar.measured is None else f"{bar.measured:.3f}"
        sign = "<=" if bar.at_most else ">="
        lines.append(f"| {bar.name} | {measured} | {sign} {bar.wanted:g} | {'yes' if bar.met else 'NO'} |")
    return "\n".join(lines)


def report(out: Path, limits: dict[str, float]) -> tuple[str, bool]:
    """The table of what there is so far, which is also written to OUT/bars.md, and whether all bars are met."""
    records = [record.read(path) for path in sorted(out.glob("*/record.json"))]
    found = bars(records, limits)
    device = next(
        (gpu["name"] for document in records for gpu in document["system"]["gpus"]),
        "no GPU: not what these bars are about",
    )
    met = sum(bar.met for bar in found)
    lines = [f"Bars on a GPU ({device})", "", table(found), "", f"{met} of {len(found)} met", "", *states(records)]
    text = "\n".join(lines)
    files.write(out / "bars.md", text + "\n")
    return text, met == len(found)


def add_limits(parser: argparse.ArgumentParser) -> None:
    for name, (limit, what) in LIMITS.items():
        parser.add_argument(f"--{name}", type=float, default=limit, metavar="X", help=f"{what} ({limit:g})")


def limits_of(arguments: argparse.Namespace) -> dict[str, float]:
    return {name: getattr(arguments, name.replace("-", "_")) for name in LIMITS}


def main() -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=a_path, metavar="OUT", help="the folder that run_gpu_checks.sh measured into")
    add_limits(parser)
    a = parser.parse_args()
    if not a.out.is_dir():
        raise UserError(f"no folder {a.out}; run benchmarks/run_gpu_checks.sh first, which names it")
    text, all_met = report(a.out, limits_of(a))
    print(text)
    return 0 if all_met else 1


if __name__ == "__main__":
    run(main)
