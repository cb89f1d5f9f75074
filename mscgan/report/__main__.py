"""Writes RUN/report.html: scores, curves, pictures and provenance of one run, or of several side by side.

`python -m mscgan.report RUN [RUN ...] [--out report.html]`. A run need not be scored or complete: a section that it has
nothing for says why, and what to do. Prints the path; everything in the page is in that one file.
"""

import sys
from importlib.metadata import version
from pathlib import Path

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mscgan import files
from mscgan.arguments import Parser
from mscgan.checks import check_place
from mscgan.errors import UserError, run
from mscgan.paths import a_path
from mscgan.report import images, plots, scores
from mscgan.report.reading import Run, differing_keys, provenance, read


def page(runs: list[Run]) -> str:
    """The HTML of the report. What comes from a run is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    curves = [(run.name, run.curve) for run in runs]
    scored = [(run.name, run.evaluation) for run in runs if run.evaluation]
    samples, extremes = images.pictures(runs)
    return environment.get_template("page.html").render(
        runs=runs,
        colours=plots.COLOURS,
        scores=scores.tables(scored),
        differences=scores.difference_tables(scored),
        keys=differing_keys(runs),
        losses=plots.losses(curves),
        speeds=plots.speeds(curves),
        samples=samples,
        extremes=extremes,
        provenance=[provenance(run) for run in runs],
        version=version("mscgan"),
    )


def main() -> None:
    parser = Parser(prog="python -m mscgan.report", description="Writes a page on runs.")
    parser.add_argument(
        "runs", type=a_path, nargs="+", metavar="RUN", help="a run's folder; several stand side by side"
    )
    parser.add_argument("--out", type=a_path, help="the HTML file to write; report.html in the first run by default")
    options = parser.parse_args()
    out = options.out or options.runs[0] / "report.html"
    runs = read(options.runs)
    check_place(out, "--out")
    torch.backends.cudnn.deterministic = True  # the same command, the same pictures
    content = page(runs).encode(errors="replace")  # a folder's name may be no Unicode
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        files.write(out, content)
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror}); give another file with --out") from error
    print(f"{len(content) / 1e6:.1f} MB", file=sys.stderr)
    print(out)


if __name__ == "__main__":
    run(main)
