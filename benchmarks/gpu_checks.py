"""The bars that this project holds on a GPU, from the records under a folder: measured, wanted, met.

    python benchmarks/gpu_checks.py OUT           the last part of benchmarks/run_gpu_checks.sh

Exit code 0 if all are met, else 1. A bar whose section failed counts as not met.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import record
from mscgan.errors import UserError, run

OURS = "zero1"  # what training uses unless told otherwise
OPS = {
    "pyramid": ("forward", "forward+backward"),
    "condition": ("forward",),
    "bias_act": ("forward", "forward+backward"),
    "bias_act + residual": ("forward", "forward+backward"),
    "masked_l1": ("forward", "forward+backward"),
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


def bars(records: list[dict]) -> list[Bar]:
    """Every bar, from the sections `ops` and `step` of the records. Ratios are taken within one record."""
    ops = {}
    for document in records:
        ops |= {row["key"]: row["metrics"] for row in document["sections"].get("ops", {}).get("rows", [])}
    found = []
    for op, passes in OPS.items():
        for which in passes:
            metrics = ops.get(f"{op} {which} ours", {})
            found.append(Bar(f"{op}, {which}: share of the copy rate", metrics.get("copy_share"), 0.85))
            found.append(Bar(f"{op}, {which}: times torch.compile's", metrics.get("times_compiled"), 1.0))
    found.append(Bar("joint step: share of the bf16 matrix rate", _metric(records, OURS, "matrix_share"), 0.5))
    found.append(Bar("joint step: times eager fp32 NCHW", _ratio(records, OURS, "plain"), 2.5))
    found.append(
        Bar("joint step: times torch.compile + DDP + bf16 without our ops", _ratio(records, OURS, "compiled"), 1.15)
    )
    found.append(
        Bar(
            "joint step: data wait, share of the step",
            _metric(records, "loader", "data_wait_share"),
            0.01,
            at_most=True,
        )
    )
    found.append(Bar("joint step: ZeRO-1, times DDP", _ratio(records, "zero1", "ddp"), 0.95))
    return found


def _metric(records: list[dict], way: str, metric: str) -> float | None:
    return next((row["metrics"][metric] for rows in _steps(records) for row in rows if row["way"] == way), None)


def _ratio(records: list[dict], above: str, below: str) -> float | None:
    """Pairs/s of one way over another's, where a record has both."""
    for rows in _steps(records):
        rates = {row["way"]: record.value(row["metrics"]["pairs_per_second"]) for row in rows}
        if above in rates and below in rates:
            return rates[above] / rates[below]
    return None


def _steps(records: list[dict]) -> list[list[dict]]:
    """The joint steps of each record that has any."""
    found = [
        [row for row in document["sections"].get("step", {}).get("rows", []) if row["stage"] == "joint"]
        for document in records
    ]
    return [rows for rows in found if rows]


def table(found: list[Bar]) -> str:
    """The bars as Markdown."""
    lines = ["| bar | measured | wanted | met |", "| --- | --- | --- | --- |"]
    for bar in found:
        measured = "not measured" if bar.measured is None else f"{bar.measured:.3f}"
        sign = "<=" if bar.at_most else ">="
        lines.append(f"| {bar.name} | {measured} | {sign} {bar.wanted:g} | {'yes' if bar.met else 'NO'} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder that run_gpu_checks.sh measured into")
    out = parser.parse_args().out
    if not out.is_dir():
        raise UserError(f"no folder {out}; run benchmarks/run_gpu_checks.sh {out} first")
    records = [record.read(path) for path in sorted(out.glob("*/record.json"))]
    found = bars(records)
    device = next(
        (gpu["name"] for document in records for gpu in document["system"]["gpus"]),
        "no GPU: not what these bars are about",
    )
    text = f"Bars on a GPU ({device})\n\n{table(found)}\n\n{sum(bar.met for bar in found)} of {len(found)} met"
    (out / "bars.md").write_text(text + "\n")
    print(text)
    return 0 if all(bar.met for bar in found) else 1


if __name__ == "__main__":
    run(main)
