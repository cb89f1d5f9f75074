"""How far a training is, from what it writes: the newest line of RUN/metrics.jsonl, and the schedule of its launch."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import yaml

from launch import runs
from mscgan import files
from mscgan.errors import UserError
from mscgan.schedule import schedule

LAST_BYTES = 16 << 10  # a line has some hundred bytes
LARGEST = 1 << 20  # of a configuration


@dataclass
class Progress:
    pairs: int  # seen, over all attempts
    total: int  # of the whole run; 0 where its configuration cannot be read
    rate: float  # pairs a second of this attempt; 0 before its first line

    def left(self) -> str:
        """H:MM:SS to the end at this rate; empty where there is none."""
        if not self.rate or not self.total:
            return ""
        seconds = max(0, self.total - self.pairs) / self.rate
        return f"{int(seconds // 3600)}:{int(seconds // 60 % 60):02d}:{int(seconds % 60):02d}"

    def share(self) -> str:
        return f"{min(1.0, self.pairs / self.total):.0%}" if self.total else ""


def of(plan: runs.Plan, index: int) -> Progress:
    """The progress of one run of a launch; of a job that trains nothing, zeros."""
    if plan.kind != "train":
        return Progress(0, 0, 0.0)
    run = Path(plan.works[index].run)
    line, saved = _last_line(run / "metrics.jsonl"), _pairs(runs.newest_checkpoint(run))
    starts = runs.notes(plan, index, "start")
    began = _pairs(starts[-1]["checkpoint"]) if starts else 0
    seen = int(line.get("pairs", 0))
    # Training cuts the file where it goes on, so what lies beyond that is of this attempt.
    rate = float(line.get("pairs_per_second", 0.0)) if starts and seen > began else 0.0
    return Progress(max(seen, saved), _total(Path(plan.folder) / f"config-{index}.yaml"), rate)


def _pairs(checkpoint: str) -> int:
    return int(checkpoint[6:] or 0)


def _last_line(file: Path) -> dict:
    """The last whole line; empty where there is none."""
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, opened.seek(0, os.SEEK_END) - LAST_BYTES))
            lines = opened.read().split(b"\n")[:-1]
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        return found if isinstance(found, dict) else {}
    return {}


def _total(config: Path) -> int:
    try:
        values = yaml.safe_load(files.read(config, LARGEST))
        return schedule(values["family"], values["train"]["pairs"])[-1].end
    except (OSError, yaml.YAMLError, KeyError, TypeError, UserError):
        return 0
