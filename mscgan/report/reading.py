"""What the folder of a run says, for the page; and what of it differs between runs.

The launcher's launch.json is read as it lies there, by the fields that launch/runs.py names.
"""

import hashlib
import json
import shlex
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from mscgan import checkpoint, config, curve, files
from mscgan.checks import beside
from mscgan.errors import UserError
from mscgan.keys import Config
from mscgan.report.scores import Evaluation, command, read_evaluation
from mscgan.schedule import schedule

LARGEST_PLAN = 16 << 20  # bytes of a launch.json


@dataclass(frozen=True)
class Run:
    name: str  # of the folder; its path where two have the same
    folder: Path
    config: Config
    evaluation: Evaluation | None  # None: not scored
    curve: list[dict]  # lines of metrics.jsonl
    no_curve: str  # why there are none
    generator_sha256: str  # "" without weights
    config_sha256: str

    @property
    def shards(self) -> str:
        """The folder of the shards that the run was scored on, or else trained on."""
        return self.evaluation.shards if self.evaluation else self.config.data.root

    @property
    def score_command(self) -> str:
        return command(self.folder)

    @property
    def config_text(self) -> str:
        return config.text(self.config)

    @property
    def stale(self) -> str:
        """Why the scores are not those of the run as it is now; "" where they are."""
        if self.evaluation and self.evaluation.generator_sha256 != self.generator_sha256:
            return "they are of other weights than those that lie here now"
        if self.evaluation and self.evaluation.config_sha256 != self.config_sha256:
            return "the run's configuration has changed since"
        return ""


def read(folders: list[Path]) -> list[Run]:
    """The runs of these folders, each once.

    Raises:
        UserError: a folder is no run's, or its configuration or evaluation.json is broken or of another version.
    """
    places: dict[Path, Path] = {}
    for folder in folders:
        places.setdefault(folder.resolve(), folder)
    often = Counter(place.name for place in places)
    return [_read(folder, place.name if often[place.name] == 1 else str(folder)) for place, folder in places.items()]


def _read(folder: Path, name: str) -> Run:
    if not folder.is_dir():
        raise UserError(f"no run folder {str(folder)!r}; {beside(folder, 'config.yaml') or 'give the folder of a run'}")
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder} has no config.yaml; give the folder of a run whose training has started")
    lines, why = _curve(folder / "metrics.jsonl")
    return Run(
        name, folder, config.load(str(folder / "config.yaml")), read_evaluation(folder), lines, why,
        _sha256(folder / "generator.safetensors"), _sha256(folder / "config.yaml"),
    )  # fmt: skip


def _curve(path: Path) -> tuple[list[dict], str]:
    if not path.is_file():
        return [], f"{path} is not there; training writes it"
    try:
        lines = curve.read(path)
    except OSError as error:
        return [], f"{path} cannot be read ({error.strerror})"
    return lines, "" if lines else f"{path} has no line yet; training writes one every log.every pairs"


def _sha256(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def differing_keys(runs: list[Run]) -> dict[str, list[str]]:
    """The keys of the configurations that have not one value in all runs, with each run's; the folder is none."""
    leaves = [config.leaves(run.config) for run in runs]
    keys = dict.fromkeys(key for one in leaves for key in one if key != "run")
    values = {key: [str(one[key]) if key in one else "" for one in leaves] for key in keys}
    return {key: each for key, each in values.items() if len(set(each)) > 1}


def provenance(run: Run) -> dict[str, str]:
    """Where a run's numbers come from: a title, and what there is to say."""
    facts, version_of_run = _checkpoint(run)
    launch = _launch(run.folder)
    told = {
        "method": run.config.family + (f", variant {run.config.variant}" if run.config.variant else ""),
        "training": _position(run, facts),
        "machine": ", ".join(f"{key} {value}" for key, value in facts.get("ran_with", {}).items()),
        "mscgan": version_of_run,
        "commit": launch.get("commit", "not known: the run was started without launch/submit.py"),
        "command": launch.get("command", ""),
        "the same again": f"python -m mscgan.train --config {shlex.quote(str(run.folder / 'config.yaml'))} run=FOLDER",
        "shards": run.config.data.root,
        "fingerprint of the shards trained on": facts.get("made_with", {}).get("shards", ""),
        "generator.safetensors, sha256": run.generator_sha256,
        "config.yaml, sha256": run.config_sha256,
    }
    if run.evaluation:
        told["scored by"] = f"mscgan {run.evaluation.version}, {run.evaluation.pairs_told}"
        told["fingerprint of the shards scored on"] = run.evaluation.shards_fingerprint
        if run.evaluation.shards != run.config.data.root:
            told["shards scored on"] = run.evaluation.shards
    return {title: text for title, text in told.items() if text}


def _checkpoint(run: Run) -> tuple[dict, str]:
    """The facts of the newest checkpoint and the version that wrote it; without one, why."""
    try:
        newest = checkpoint.newest(run.folder)
        if newest is None:
            return {}, f"this report: {version('mscgan')}; the run has no checkpoint"
        document = checkpoint.document(newest)
    except (UserError, checkpoint.Damaged, OSError) as error:
        return {}, f"not known: {error}"
    return document["state"], document["version"]


def _position(run: Run, facts: dict) -> str:
    total = schedule(run.config.family, run.config.train.pairs)[-1].end
    last = run.curve[-1] if run.curve else {}
    pairs, steps = (facts or last).get("pairs", 0), (facts or last).get("steps", "?")
    if not pairs:
        return f"has seen none of its {total:,} pairs"
    stage, minutes = (facts or last)["stage"], last.get("seconds", 0.0) / 60
    state = "complete" if pairs >= total else "not complete"
    took = f"; {minutes:,.1f} minutes" if minutes else ""
    return f"{state}: {pairs:,} of {total:,} pairs in {steps:,} steps of the optimisers, stage {stage}{took}"


def _launch(folder: Path) -> dict[str, str]:
    """Commit and command of the newest launch that trained the run; a sweep's lies in the folder above."""
    found = [*folder.glob("launch-*/launch.json"), *folder.resolve().parent.glob("launch-*/launch.json")]
    for path in sorted(found, key=lambda path: path.parent.name, reverse=True):
        try:
            plan = json.loads(files.read(path, LARGEST_PLAN))
            if plan["kind"] != "train":
                continue
            for work in plan["works"]:
                if Path(work["run"]).resolve() == folder.resolve():
                    return {
                        "commit": str(plan["commit"]),
                        "command": shlex.join(["python", *map(str, work["arguments"])]),
                    }
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            return {"commit": f"not known: {path} cannot be read ({type(error).__name__}: {error})"}
    return {}
