"""The curves of metrics.jsonl as small SVG plots, one a term, a line a run. They are data: URIs, for <img>.

Colours are for a light page; the page inverts them for a dark one.
"""

import base64
import io
from dataclasses import dataclass

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from mscgan.curve import METERS
from mscgan.losses import meaning

Curves = list[tuple[str, list[dict]]]  # a run's name and its lines

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf", "#7f7f7f")  # of runs, in order
POINTS = 300  # of a line at most; each the mean of its neighbours where there are more
SIZE = (3.4, 2.1)  # inches: readable at the width of a phone
SPEEDS = {
    "pairs_per_second": ("pairs per second", "of training, over all ranks", 1),
    "data_wait": ("data wait, %", "share of the time that the slowest rank waited for images", 100),
}


@dataclass(frozen=True)
class Plot:
    title: str
    meaning: str
    source: str  # a data: URI
    description: str  # in place of the picture
    last: list[str]  # of each run, the value of its last line


def losses(curves: Curves) -> list[Plot]:
    """A plot of each loss term that a run has, in the order in which they come up."""
    names = dict.fromkeys(name for _, lines in curves for line in lines for name in line if name not in METERS)
    return [_plot(name, name, meaning(name), curves) for name in names]


def speeds(curves: Curves) -> list[Plot]:
    """Throughput and data wait, where a run has lines."""
    there = {name for _, lines in curves for line in lines for name in line}
    return [_plot(name, title, said, curves, by) for name, (title, said, by) in SPEEDS.items() if name in there]


def _plot(name: str, title: str, said: str, curves: Curves, by: float = 1) -> Plot:
    # A name may hold a $, which would be mathematics; the salt gives the same run the same file.
    with matplotlib.rc_context({"text.parse_math": False, "svg.hashsalt": name, "font.size": 8}):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        told, last = [], []
        for number, (run, lines) in enumerate(curves):
            points = [(line["pairs"], by * line[name]) for line in lines if isinstance(line.get(name), int | float)]
            last.append(f"{points[-1][1]:.3g}" if points else "–")
            if points:
                colour = COLOURS[number % len(COLOURS)]
                axes.plot(*zip(*_thinned(points)), color=colour, linewidth=1.2, marker="." if len(points) == 1 else "")
                for before, after in zip(lines, lines[1:]):
                    if before["stage"] != after["stage"]:
                        axes.axvline(before["pairs"], color=colour, linestyle=":", linewidth=0.8)
                (start, first), (end, _) = points[0], points[-1]
                told.append(f"{run}: {first:.3g} at {start:,} pairs, {last[-1]} at {end:,}")
        axes.set_xlabel("pairs seen")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(bottom=0 if name in SPEEDS else None)
        out = io.BytesIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    source = "data:image/svg+xml;base64," + base64.b64encode(out.getvalue()).decode()
    return Plot(title, said, source, f"{title} over the pairs seen. {'; '.join(told) or 'No values'}.", last)


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most POINTS of them: the means of as many neighbours each."""
    width = -(-len(points) // POINTS)
    groups = [points[start : start + width] for start in range(0, len(points), width)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]
