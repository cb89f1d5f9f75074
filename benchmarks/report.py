"""The record as Markdown: a table a section, with the machine, the command and the way of measuring beside them.

python benchmarks/report.py OUT/RUN                                  prints it
python benchmarks/report.py OUT/RUN --into benchmarks/README.md      puts it at the end of that file, after its marker
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.record import read, value
from mscgan.arguments import Parser
from mscgan.errors import UserError, run
from mscgan.paths import a_path

MARKER = "<!-- What follows is written by benchmarks/report.py --into. -->\n"


def markdown(record: dict, plots: list[str] = ()) -> str:
    """The whole report."""
    system, identity = record["system"], record["identity"]
    dirty = " with changes" if identity["dirty"] else ""
    gpus = ", ".join(gpu["name"] for gpu in system["gpus"]) or "no GPU: these are figures of a CPU"
    load = system["load_average"][0]
    lines = [
        f"# Throughput, {record['started']}",
        "",
        f"- command: `{identity['command']}`",
        f"- code: {identity['commit'] or 'unknown'}{dirty}",
        f"- machine: {system['cpu']}, {system['cores']} cores, {system['memory_bytes'] / 2**30:.0f} GiB; {gpus}",
        f"- load average at the start: {load:.1f}" + (" (others used this machine)" if load > system["cores"] else ""),
        f"- ranks: {system['world']}, torch threads {system['threads']}",
        "- packages: " + ", ".join(f"{name} {version}" for name, version in system["packages"].items() if version),
        f"- status: {record['status']}, record `{record['run_id']}`, schema {record['schema_version']}",
        "",
    ]
    for name, section in record["sections"].items():
        lines += [f"## {name}", ""]
        if section["status"] in ("failed", "skipped"):
            lines += [f"{section['status'].capitalize()}: {section['error']}", ""]
        if section["status"] == "running":
            lines += [f"Was still measuring when this was written, after {section['seconds']:.0f} s.", ""]
        if "definition" not in section:
            continue
        lines += _table(TABLES[name](section))
        lines += ["", f"{section['definition']}. Took {section['seconds']:.0f} s.", ""]
        lines += [f"- {key}: `{json.dumps(section[key])}`" for key in ("workload", "method") if key in section]
        for failure in section.get("failures", []):
            lines.append(
                f"- {'did not fit' if failure.keys() == {'batch', 'error'} else 'failed'}: `{json.dumps(failure)}`"
            )
        lines.append("")
    if record.get("projection"):
        lines += _projection(record["projection"])
    lines += [f"![{name}]({name})" for name in plots]
    return "\n".join(lines) + "\n"


def _data(section: dict) -> list[list[str]]:
    head = ["images", "way", "images/s", f"x {section['base']}", "batch ms p50 / p95 / p99"]
    rows = []
    for row in section["rows"]:
        metrics = row["metrics"]
        batch = " / ".join(f"{metrics['batch_ms'][key]:.1f}" for key in ("p50", "p95", "p99"))
        rows.append(
            [
                row["size"],
                row["way"],
                _spread(metrics["images_per_second"], 0),
                _number(metrics["times_base"]),
                batch,
            ]
        )
    rows += [[failure["images"], failure["way"], failure["error"], "", ""] for failure in section["failures"]]
    return [head, *rows]


def _ops(section: dict) -> list[list[str]]:
    head = ["op", "pass", "implementation", "us", "GB/s", "share of copy", "x eager", "x compiled"]
    rows = []
    for row in section["rows"]:
        metrics = row["metrics"]
        rows.append([
            row["op"], row["pass"], row["implementation"], f"{value(metrics['microseconds']):.0f}",
            _spread(metrics["gigabytes_per_second"], 1), _percent(metrics["copy_share"]),
            _number(metrics["times_eager"]),
            _number(metrics["times_compiled"]),
        ])  # fmt: skip
    copy = f"{section['copy_gigabytes_per_second']:.1f}"
    return [head, *rows, ["device copy", "", "", "", copy, "100 %", "", ""]]


def _step(section: dict) -> list[list[str]]:
    head = ["stage", "images", "precision", "way", "batch", "pairs/s", "step ms p50 / p95", "TFLOP/s a device",
            "of matrix rate", "of 989e12", "GiB peak", "J/pair", "data wait", "D / G / optimizer ms",
            "finite"]  # fmt: skip
    rows = []
    for row in section["rows"]:
        metrics, phases = row["metrics"], row["phases_ms"]
        memory, times = metrics["peak_memory_bytes"], metrics["step_ms"]
        G = phases.get("G forward", 0.0) + phases.get("G backward", 0.0)
        optimizer = phases.get("optimizer", 0.0) + phases.get("EMA", 0.0)
        rows.append([
            row["stage"], row["size"], row["precision"], row["way"], str(row["batch"]),
            _spread(metrics["pairs_per_second"], 1), f"{times['median']:.1f} / {times['p95']:.1f}",
            f"{metrics['teraflops']:.3g}", _percent(metrics["matrix_share"]),
            _percent(metrics["peak_share"]), "" if memory is None else f"{memory / 2**30:.1f}",
            _number(metrics["joules_per_pair"]), _percent(metrics["data_wait_share"], 2),
            f"{phases.get('D', 0.0):.1f} / {G:.1f} / {optimizer:.1f}" if phases else "",
            "yes" if row["finite"] else "NO",
        ])  # fmt: skip
    return [head, *rows]


def _scaling(section: dict) -> list[list[str]]:
    head = ["kind", "ranks", "batch a rank", "pairs/s", "efficiency", "step ms p50 / p95"]
    rows = []
    for row in section["rows"]:
        times = row["metrics"]["step_ms"]
        rows.append([
            row["kind"], str(row["ranks"]), str(row["batch"]), _spread(row["metrics"]["pairs_per_second"], 1),
            _percent(row["metrics"]["efficiency"]), f"{times['median']:.1f} / {times['p95']:.1f}",
        ])  # fmt: skip
    return [head, *rows]


def _checkpoint(section: dict) -> list[list[str]]:
    head = ["state", "MB", "MB of a rank", "training loses s", "of it standing still", "published after s",
            "memory / share", "load s", "same after load"]  # fmt: skip
    rows = []
    for row in section["rows"]:
        metrics = row["metrics"]
        rows.append([
            row["key"], f"{row['bytes'] / 1e6:.0f}", f"{row['share_bytes'] / 1e6:.0f}",
            _spread(metrics["stall_seconds"], 3), _spread(metrics["copy_seconds"], 3),
            _spread(metrics["published_seconds"], 3),
            _spread(metrics["memory"], 2), _spread(metrics["load_seconds"], 3),
            "yes" if row["restored_equal"] else "NO",
        ])  # fmt: skip
    return [head, *rows]


def _profile(section: dict) -> list[list[str]]:
    head = ["way", "kernel", "calls a step", "ms a step", "of all"]
    return [head] + [
        [row["way"], f"`{row['kernel']}`", f"{row['calls']:g}", f"{row['metrics']['ms']:.2f}",
         _percent(row["metrics"]["share"])]
        for row in section["rows"]
    ]  # fmt: skip


def _peers(section: dict) -> list[list[str]]:
    head = ["images", "way", "stage", "batch", "GFLOP a pair", "step ms p50", "share of matrix rate", "x ours",
            "CPU: share", "x ours", "finite"]  # fmt: skip
    rows = []
    for row in section["rows"]:
        metrics = row["metrics"]
        shares = []
        for suffix in ("", "_cpu"):
            share, times = (metrics.get(f"{name}{suffix}") for name in ("matrix_share", "times_ours"))
            shares += [_spread(share, 3) if share else "", _spread(times, 2) if times else ""]
        rows.append([
            row["size"], row["way"], row["stage"], str(row["batch"]), f"{row['gflop_per_pair']:.2f}",
            f"{metrics['step_ms']['median']:.0f}", *shares, "yes" if row["finite"] else "NO",
        ])  # fmt: skip
    matrix = {clock: f"{teraflops:.3g} TFLOP/s" for clock, teraflops in section["matrix_teraflops"].items()}
    return [head, *rows, ["matrix product", *[""] * 5, matrix["wall"], "", matrix.get("cpu", ""), "", ""]]


TABLES = {
    "data": _data,
    "ops": _ops,
    "step": _step,
    "profile": _profile,
    "scaling": _scaling,
    "checkpoint": _checkpoint,
    "peers": _peers,
}


def _projection(projection: dict) -> list[str]:
    rows = [
        ["nodes", "ranks", "all-reduce ms", "pairs/s, nothing hidden", "efficiency", "pairs/s, hidden", "efficiency"]
    ]
    for row in projection["rows"]:
        bounds = [
            [f"{row[name]['pairs_per_second']:.1f}", _percent(row[name]["efficiency"])]
            for name in ("exposed", "hidden")
        ]
        rows.append([str(row["nodes"]), str(row["ranks"]), f"{row['all_reduce_ms']:.1f}", *bounds[0], *bounds[1]])
    gradients = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in projection["gradient_bytes"].items())
    return [
        "## Projection: calculated, not measured",
        "",
        f"From the measured step `{projection['from']}`, gradients of {gradients}, and a network with "
        f"{projection['network_gigabytes_per_second']:g} GB/s of bus bandwidth; projection.py has the formula.",
        "",
        *_table(rows),
        "",
    ]


def _table(rows: list[list[str]]) -> list[str]:
    head, *body = rows
    return [f"| {' | '.join(head)} |", "|" + " --- |" * len(head), *(f"| {' | '.join(row)} |" for row in body)]


def _spread(metric: dict, digits: int) -> str:
    spread = "once" if metric["ci95"] is None else f"± {metric['ci95']:,.{digits}f}"
    return f"{metric['median']:,.{digits}f} {spread}"


def _percent(share: float | None, digits: int = 1) -> str:
    return "" if share is None else f"{share:.{digits}%}".replace("%", " %")


def _number(number: float | None) -> str:
    return "" if number is None else f"{number:.2f}"


def put_into(page: Path, text: str) -> None:
    """Replaces what stands after the page's marker by the report, its headings two levels lower.

    Raises:
        UserError: the page has no marker.
    """
    head, marker, _ = page.read_text().partition(MARKER)
    if not marker:
        raise UserError(f"{page} has no line {MARKER.strip()!r}; add it where the figures should go")
    lines = [f"##{line}" if line.startswith("#") else line for line in text.splitlines()]
    page.write_text(head + marker + "\n" + "\n".join(lines) + "\n")


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=a_path, metavar="OUT/RUN", help="a run's folder or its record.json")
    parser.add_argument("--into", type=a_path, metavar="PAGE", help="a Markdown file with the marker")
    a = parser.parse_args()
    text = markdown(read(a.record))
    if a.into:
        put_into(a.into, text)
    else:
        print(text)


if __name__ == "__main__":
    run(main)
