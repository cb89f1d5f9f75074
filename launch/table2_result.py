"""Writes table2.json, table2.md and table2.tex of a table's folder, from the scores that there are.

    python launch/table2_result.py runs/table2-market1501

Trains and scores nothing, and loads no weights: it reads each run's evaluation.json and its newest checkpoint's facts.
Exit code 1 where a row is missing, which the table names with the reason.
"""

import argparse
import json
import math
import statistics
import sys
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from launch import runs, table2, table2_text
from launch.table2 import Run, Table
from mscgan import files, schedule
from mscgan.data.manifest import read_manifest
from mscgan.errors import DONE, FAILED, run
from mscgan.paths import path_text
from mscgan.table2 import COLUMNS, PAPER, PAPER_PAIRS, ROWS, SAME_AS, SHARED

REFERENCES = {"copy_source": "Copy of the source", "real": "Real images"}  # methods that no row made
SCHEMA = 1


def write(folder: str) -> int:
    """Writes the three files and says which rows are missing. Returns DONE, or FAILED where one is."""
    document = result(table2.read_asked(folder))
    texts = {"json": json.dumps(document, indent=1) + "\n"}
    texts |= {"md": table2_text.markdown(document), "tex": table2_text.latex(document)}
    for suffix, text in texts.items():
        files.write(Path(folder) / f"table2.{suffix}", text)
    for gap in document["missing"]:
        print(f"missing: {gap['row']}, seed {gap['seed']}: {gap['why']}")
    print(f"table 2: {', '.join(f'{folder}/table2.{suffix}' for suffix in texts)}", flush=True)
    return FAILED if document["missing"] else DONE


def result(table: Table) -> dict:
    """The table as table2.json holds it.

    rows: {"title", "row", "family", "variant", "data", "budget", "test_pairs", "people", "scores", "runs"} each, its
    scores {score: cell} by COLUMNS as `cell` gives them, its runs {seed: {"run", "missing"} or {"run", "scores", ...}}.
    references: copy of the source and real images, as `rows`. published: the paper's. missing: rows with a seed.
    """
    found = {run.config.run: table2.evaluation(run.config)[0] for run in table.runs if not table2.missing(run)}
    some = list(found.values())
    shards = {document["shards_fingerprint"] for document in some}
    return {
        "schema": SCHEMA,
        "version": version("mscgan"),
        "preset": table.preset,
        "overrides": table.overrides,
        "seeds": list(range(table.seeds)),
        "data": sorted({document["dataset"] for document in some}) or _data(table),
        "shards_fingerprints": sorted(shards),
        "columns": COLUMNS,
        "protocols": {name: text for document in some[:1] for name, text in document["protocols"].items()},
        "left_out": {name: why for document in some for name, why in document["left_out"].items() if name in COLUMNS},
        "shared": {run.row.family: SHARED[run.row.family] for run in table.runs if run.shared},
        "same_as": SAME_AS,
        "rows": [_row([run for run in table.runs if run.row == row], found) for row in ROWS],
        "references": [_reference(method, title, some[0]) for method, title in REFERENCES.items()
                       if some and COLUMNS.keys() & some[0]["scores"].get(method, {}).keys()],
        "published": [_published(number) for number in range(len(PAPER))],
        "missing": [{"row": run.row.name, "seed": run.seed, "run": run.config.run, "why": why}
                    for run in table.runs if (why := table2.missing(run))],
    }  # fmt: skip


def _data(table: Table) -> list[str]:
    """The data set's name where no row has scores yet and the shards are on this machine."""
    root = table.runs[0].config.data.root
    return [read_manifest(root)["dataset"]] if (Path(root) / "manifest.json").is_file() else []


def _row(of_row: list[Run], found: dict[str, dict]) -> dict:
    row, config = of_row[0].row, of_row[0].config
    scored = [found[run.config.run] for run in of_row if run.config.run in found]
    facts = runs.facts(config.run, schedule.SCHEMA)
    stages = {stage.name: stage.end - stage.start for stage in schedule.schedule(row.family, config.train.pairs)}
    return {
        "title": row.title, "row": row.name, "family": row.family, "variant": row.variant, "published": row.published,
        "data": scored[0]["dataset"] if scored else "",
        "budget": {"pairs": stages, "steps": math.ceil(sum(stages.values()) / config.train.batch),
                   "batch": config.train.batch, "base": config.options().base},
        "test_pairs": scored[0]["pairs"] if scored else None, "people": scored[0]["people"] if scored else None,
        "scores": {score: cell([_answer(document).get(score) for document in scored]) for score in COLUMNS},
        "runs": {str(run.seed): _run(run, found.get(run.config.run)) for run in of_row},
        "precision": facts.get("made_with", {}).get("train.precision", ""),
    }  # fmt: skip


def _run(run: Run, document: dict | None) -> dict:
    if document is None:
        return {"run": run.config.run, "missing": table2.missing(run)}
    hashes = {name: document[name] for name in ("generator_sha256", "config_sha256", "shards_fingerprint")}
    return {"run": run.config.run, "scores": _answer(document), **hashes}


def _answer(document: dict) -> dict:
    """The scores of what a family makes last, its answer."""
    return list(document["scores"].values())[-1]


def _reference(method: str, title: str, document: dict) -> dict:
    """Of one evaluation: the pairs are the same for every row, and no weights take part."""
    scores = document["scores"][method]
    return {"title": title, "data": document["dataset"], "test_pairs": document["pairs"], "people": document["people"],
            "scores": {score: cell([scores.get(score)]) for score in COLUMNS}}  # fmt: skip


def cell(values: list[dict | None]) -> dict | None:
    """A score over the seeds that have it; None where none has.

    values: of evaluation.json, one a seed.

    Returns:
        value: the mean over seeds; spread: their standard deviation, None for one seed; low and high: from the lowest
        to the highest end of their intervals, None where one has none; seeds: how many.
    """
    there = [value for value in values if value]
    if not there:
        return None
    means = [value["value"] for value in there]
    ends = {"low": [value["low"] for value in there], "high": [value["high"] for value in there]}
    bounded = None not in ends["low"] + ends["high"]
    return {
        "value": statistics.fmean(means),
        "spread": statistics.stdev(means) if len(means) > 1 else None,
        "low": min(ends["low"]) if bounded else None,
        "high": max(ends["high"]) if bounded else None,
        "seeds": len(there),
    }


def _published(number: int) -> dict:
    row = PAPER[number]
    by_data = {"market1501": row.market1501, "deepfashion": row.deepfashion}
    return {"title": row.title, "test_pairs": PAPER_PAIRS,
            "data": {name: dict(zip(COLUMNS, values)) for name, values in by_data.items() if values}}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python launch/table2_result.py", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=path_text, help="the table's folder")
    return write(parser.parse_args().folder)


if __name__ == "__main__":
    run(main)
