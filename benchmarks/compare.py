"""Two records side by side: the ratio of every metric that both have, and which became worse, noise allowed for.

Whatever the speed, a step whose losses are not finite and a checkpoint that restores something else are failures, and
so is a step that waits longer for its data.
"""

from dataclasses import dataclass
from pathlib import Path

from benchmarks import record

HIGHER_IS_BETTER = {
    "images_per_second": True,
    "pairs_per_second": True,
    "gigabytes_per_second": True,
    "efficiency": True,
    "joules_per_pair": False,
    "peak_memory_bytes": False,
    "stall_seconds": False,
    "load_seconds": False,
}
WAIT = 0.01  # of a step, by which its wait for data may grow
HOLDS = ("finite", "restored_equal")  # what a row says of itself, and what must be true of the newer one
SAME = ("cpu", "cores", "threads", "gpus", "packages", "cuda", "world")  # what makes two records comparable


@dataclass(frozen=True)
class Line:
    section: str
    key: str
    metric: str
    before: float | None
    after: float | None
    ratio: float | None  # after / before
    regression: bool


def compare(before: dict, after: dict, tolerance: float) -> list[Line]:
    """The metrics of `before`, in its order, each with its counterpart in `after`.

    A metric is a regression when it is worse by more than `tolerance` plus the 95 % intervals of both sides (relative),
    or when a section that was run again lacks it. Sections that `after` has not run are left out. A wait for data is
    one when it has grown by more than WAIT, and what is false that HOLDS names, in any row of `after`.
    """
    lines = []
    for name, section in before["sections"].items():
        if name not in after["sections"]:
            continue
        found = {row["key"]: row["metrics"] for row in after["sections"][name]["rows"]}
        for row in section["rows"]:
            for metric, old in row["metrics"].items():
                new = found.get(row["key"], {}).get(metric)
                if metric == "data_wait_share" and old is not None:
                    lines.append(_wait(name, row["key"], old, new))
                elif metric in HIGHER_IS_BETTER and record.value(old):
                    lines.append(_line(name, row["key"], metric, old, new, tolerance))
    return lines + _untrue(after)


def _wait(section: str, key: str, before: float, after: float | None) -> Line:
    ratio = after / before if before and after is not None else None
    return Line(section, key, "data_wait_share", before, after, ratio, after is None or after > before + WAIT)


def _untrue(after: dict) -> list[Line]:
    """A line for each thing that has to hold in a row and does not."""
    return [
        Line(name, row["key"], what, 1.0, 0.0, None, True)
        for name, section in after["sections"].items()
        for row in section["rows"]
        for what in HOLDS
        if row.get(what) is False
    ]


def _line(section: str, key: str, metric: str, old, new, tolerance: float) -> Line:
    before, after = record.value(old), record.value(new)
    if not after:
        return Line(section, key, metric, before, None, None, True)
    ratio = after / before
    gain = ratio if HIGHER_IS_BETTER[metric] else 1 / ratio
    return Line(section, key, metric, before, after, ratio, gain < 1 - tolerance - _noise(old) - _noise(new))


def _noise(metric) -> float:
    return (metric.get("ci95") or 0.0) / metric["median"] if isinstance(metric, dict) else 0.0


def differences(before: dict, after: dict) -> list[str]:
    """What differs between the machines and packages of two records, a line each."""
    lines = []
    for name in SAME:
        old, new = before["system"].get(name), after["system"].get(name)
        if name == "gpus":
            old, new = ([gpu["name"] for gpu in gpus or []] for gpus in (old, new))
        if isinstance(old, dict) and isinstance(new, dict):
            changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
            lines += [f"{key}: {old.get(key)} -> {new.get(key)}" for key in changed]
        elif old != new:
            lines.append(f"{name}: {old} -> {new}")
    return lines


def main(before: Path, after: Path, tolerance: float) -> int:
    """Prints the comparison. Returns 1 where something became worse, else 0."""
    old, new = record.read(before), record.read(after)
    for line in differences(old, new):
        print(f"not the same on both sides: {line}")
    lines = compare(old, new, tolerance)
    width = max((len(f"{line.section}: {line.key}") for line in lines), default=0)
    for line in lines:
        after_text = "gone" if line.after is None else f"{line.after:12.4g}"
        ratio = "" if line.ratio is None else f"{line.ratio:8.3f}x"
        flag = "  REGRESSION" if line.regression else ""
        name = f"{line.section}: {line.key}"
        print(f"{name:{width}}  {line.metric:22}{line.before:12.4g} -> {after_text}{ratio}{flag}")
    worse = sum(line.regression for line in lines)
    print(f"{len(lines)} metrics compared, {worse} worse by more than {tolerance:.0%} and the noise of both sides")
    return 1 if worse else 0
