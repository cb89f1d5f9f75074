"""The record of a run: one versioned JSON document, with a report and plots beside it once the run is over.

    OUT/20260102T030405-1a2b3c/record.json, report.md, scaling.png, phases.png, roofline.png

    {"schema_version": "2.1", "run_id", "status", "identity", "system", "started", "ended", "arguments", "seed",
     "sections": {"data" | "ops" | "step" | "profile" | "scaling" | "checkpoint" | "peers":
        {"status": "ok" | "running" | "incomplete" | "failed" | "skipped", "seconds", "error", "workload": {...},
         "method": {...}, "rows": [...], "failures": [...], ...}},
     "projection": [...]  calculated, never measured}

It is written anew after every op, way and round, a whole file in the place of the last one, so that a run that is
killed keeps what it has measured: its section is "running" then. "failures" says which ways or batches have no row.
A row has a "key", unique in its section, "metrics" (name -> number, or {"median", "p5", "p95", "ci95"}), and facts of
its own. Readers accept any minor version, ignore fields that they do not know, and refuse another major version.
"""

import json
import os
import secrets
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from mscgan import files
from mscgan.errors import UserError

SCHEMA = "2.1"


def new(arguments: dict, seed: int) -> dict:
    """A record without sections, of the run that starts now."""
    from benchmarks import facts  # with torch, which those who read records do not need

    now = datetime.now(UTC)
    return {
        "schema_version": SCHEMA,
        "run_id": f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}",
        "status": "running",
        "started": now.isoformat(timespec="seconds"),
        "identity": facts.identity(),
        "system": facts.system(),
        "arguments": arguments,
        "seed": seed,
        "sections": {},
    }


def add(
    record: dict, name: str, measure: Callable[[Callable[[dict], None]], dict], alone: bool, written: Callable[[], None]
) -> None:
    """Runs measure(keep) and notes what it returns, or that it failed with what it had kept until then.

    Args:
        measure: calls keep(section so far) whenever there is more.
        alone: whether this is the only process; among several a failure is raised, as the others would wait for ever.
        written: called after each change, to write the record.
    """
    began = time.monotonic()

    def note(section: dict) -> None:
        record["sections"][name] = section | {"seconds": round(time.monotonic() - began, 1)}
        written()

    try:
        note({"status": "ok"} | measure(lambda section: note(section | {"status": "running"})))
    except UserError:
        raise
    except Exception as error:
        if not alone:
            raise
        traceback.print_exc()
        text = f"{type(error).__name__}: {error}".split("\n")[0]
        note({"rows": []} | record["sections"].get(name, {}) | {"status": "failed", "error": text})
        print(f"the section {name!r} failed; the others go on", file=sys.stderr, flush=True)


def finish(record: dict) -> bool:
    """Sets the record's end. Returns whether every section is there."""
    complete = all(section["status"] == "ok" for section in record["sections"].values())
    record["status"] = "ok" if complete else "failed"
    record["ended"] = datetime.now(UTC).isoformat(timespec="seconds")
    record["system"]["load_average_end"] = list(os.getloadavg())
    return complete


def write(record: dict, folder: Path) -> Path:
    """Writes the folder's record.json."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "record.json"
    files.write(path, json.dumps(record, indent=1) + "\n")
    return path


def read(path: Path) -> dict:
    """A record of this major version.

    Raises:
        UserError: no record, or of another major version.
    """
    path = path / "record.json" if path.is_dir() else path
    try:
        record = json.loads(path.read_text())
        version = str(record["schema_version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no record of run_throughput.py ({type(error).__name__}: {error})") from error
    if version.split(".")[0] != SCHEMA.split(".")[0]:
        raise UserError(f"{path} has schema {version}, this version reads {SCHEMA.split('.')[0]}.x; measure again")
    return record


def value(metric: float | dict | None) -> float | None:
    """A metric's number: itself, or its median."""
    return metric["median"] if isinstance(metric, dict) else metric
