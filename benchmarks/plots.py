"""The record as pictures: throughput against ranks, the phases of a step, the ops under their roofline."""

from pathlib import Path

from benchmarks.needs import missing, skip
from benchmarks.step import PHASES


def plot(record: dict, folder: Path) -> list[str]:
    """Writes the plots that the record has sections for. Returns the files' names; none without matplotlib."""
    if packages := missing(["matplotlib"]):
        skip("drawing the record", packages)
        return []
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    written = []
    for section, draw in (("scaling", _scaling), ("step", _phases), ("ops", _roofline)):
        found = record["sections"].get(section)
        if not found or not found["rows"]:
            continue
        figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
        drawn = draw(axes, found)
        if drawn:
            name = {"scaling": "scaling.png", "step": "phases.png", "ops": "roofline.png"}[section]
            system = record["system"]
            device = (
                system["gpus"][0]["name"] if system["gpus"] else f"CPU only: {system['cpu']}, {system['cores']} cores"
            )
            axes.set_title(f"{drawn} ({device})", fontsize=10)
            figure.savefig(folder / name, dpi=120)
            written.append(name)
        plt.close(figure)
    return written


def _scaling(axes, section: dict) -> str:
    for kind, mark in (("weak", "o"), ("strong", "s")):
        rows = [row for row in section["rows"] if row["kind"] == kind]
        ranks = [row["ranks"] for row in rows]
        rates = [row["metrics"]["pairs_per_second"] for row in rows]
        axes.plot(ranks, [rate["median"] for rate in rates], f"{mark}-", label=f"{kind} scaling")
        axes.plot(ranks, [rates[0]["median"] * count for count in ranks], "k:", linewidth=1,
                  label="ideal" if kind == "weak" else None)  # fmt: skip
    axes.set(xlabel="ranks", ylabel="pairs / s", ylim=(0, None))
    axes.set_xticks(ranks)
    axes.legend()
    return f"Throughput against ranks, {section['workload']['stage']} {section['workload']['size']}"


def _phases(axes, section: dict) -> str:
    rows = [row for row in section["rows"] if row["phases_ms"]]
    if not rows:
        return ""
    names = [row["key"] for row in rows]
    left = [0.0] * len(rows)
    for phase in PHASES:
        widths = [row["phases_ms"].get(phase, 0.0) for row in rows]
        axes.barh(names, widths, left=left, label=phase)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set(xlabel="ms a step")
    axes.tick_params(axis="y", labelsize=7)
    axes.invert_yaxis()
    axes.legend(fontsize=7)
    return "Where a step's time goes"


def _roofline(axes, section: dict) -> str:
    copy, matrix = section["copy_gigabytes_per_second"] * 1e9, section["matrix_teraflops"] * 1e12
    rows = [row for row in section["rows"] if row["pass"] == "forward"]
    intensities = [row["flops"] / row["bytes"] for row in rows]
    span = [min(intensities) / 4, max(4 * matrix / copy, 4 * max(intensities))]
    axes.plot([span[0], matrix / copy, span[1]], [span[0] * copy, matrix, matrix], "k-", linewidth=1,
              label=f"copy {copy / 1e9:.0f} GB/s, matrix product {matrix / 1e12:.3g} TFLOP/s")  # fmt: skip
    marks = {"ours": "o", "eager": "x", "compiled": "^"}
    colours = {op: f"C{number}" for number, op in enumerate(dict.fromkeys(row["op"] for row in rows))}
    for row, intensity in zip(rows, intensities, strict=True):
        seconds = row["metrics"]["microseconds"]["median"] / 1e6
        label = row["op"] if row["implementation"] == "ours" else None
        axes.plot(
            intensity, row["flops"] / seconds, marks[row["implementation"]], color=colours[row["op"]], label=label
        )
    axes.set(xscale="log", yscale="log", xlabel="FLOP / byte", ylabel="FLOP / s")
    axes.legend(fontsize=7, title="o ours   x eager   ^ compiled", title_fontsize=7)
    return "Ops, forward pass"
