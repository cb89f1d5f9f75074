"""Table 2 as launches: the runs that it has, what of them is missing, and in which order that is done.

    1  train     the stage that a family's rows share, once a seed
    2  train     the rows that stand on it, after 1
    3  train     the rows that train all of it themselves
    4  evaluate  every row, after 2 and 3
    5  table2    the table from all scores that there are (launch/table2_result.py), after 4

Each is a launch of its own, an array of runs: no GPU is held while something waits. They wait for the end of those
before, not for their success (`afterany`): SLURM would keep a job that waits for the success of a failed one for ever.
A row whose shared stage failed is refused by training in a line (train.init_after), and the others stand.
"""

import functools
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from launch import runs, states
from mscgan import config as configuration
from mscgan import evaluation_file, files, schedule
from mscgan.data.manifest import fingerprint, read_manifest
from mscgan.errors import UserError
from mscgan.keys import STAGES, Config
from mscgan.table2 import PAIRS, ROWS, SHARED, Row, run_name, shared_name

ASKED = "asked.json"  # in the table's folder: what it was last asked for
STAGE, ON_IT = "the stage that rows share", "the rows that stand on it"
OWN = "family variant train.seed train.init train.init_after".split()  # keys that each row has its own of


@dataclass
class Run:
    """A row with a seed."""

    row: Row
    seed: int
    config: Config
    shared: Config | None  # the run that trains its first stage


@dataclass
class Table:
    folder: str
    preset: str
    overrides: list[str]
    seeds: int
    runs: list[Run]


@dataclass
class Part:
    kind: str  # train | evaluate | table2
    title: str
    runs: list[Config]  # empty: of the whole table
    after: list[int] = field(default_factory=list)  # the parts before it, by their places


def ask(preset: str, overrides: list[str], seeds: int = 1) -> Table:
    """The runs of the table. `run=FOLDER` among the overrides is its folder, runs/table2-PRESET without one.

    Raises:
        UserError: an override of what the rows themselves set, or what mscgan.config.load refuses.
    """
    keys = [text.partition("=")[0] for text in overrides]
    if own := [key for key in keys if key in OWN]:
        raise UserError(f"{own[0]}: each row of table 2 has its own; leave it out, or train with --job train")
    named = [text.removeprefix("run=") for text in overrides if text.startswith("run=")]
    folder = named[-1] if named and named[-1] else f"runs/table2-{Path(preset).stem}"
    found = []
    for row in ROWS:
        for seed in range(seeds):
            shared = _shared(preset, overrides, folder, row, seed)
            config = _config(preset, overrides, row.family, row.variant, seed)
            config.run = f"{folder}/{run_name(row, seed)}"
            if shared:
                config.train.init = f"{shared.run}/generator.safetensors"
                config.train.init_after = SHARED[row.family]
                schedule.beginning(config)
            found.append(Run(row, seed, config, shared))
    return Table(folder, preset, [text for text in overrides if not text.startswith("run=")], seeds, found)


def _shared(preset: str, overrides: list[str], folder: str, row: Row, seed: int) -> Config | None:
    stage = SHARED.get(row.family, "")
    config = _config(preset, overrides, row.family, "", seed)
    if not config.train.pairs.get(stage):
        return None
    config.run = f"{folder}/{shared_name(row.family, seed)}"
    config.train.pairs = {name: pairs if name == stage else 0 for name, pairs in config.train.pairs.items()}
    return config


def _config(preset: str, overrides: list[str], family: str, variant: str, seed: int) -> Config:
    pairs = [f"train.pairs.{stage}={count}" for stage, count in PAIRS.get(preset, {}).get(family, {}).items()]
    own = [f"family={family}", f"train.seed={seed}", *([f"variant={variant}"] if variant else [])]
    return configuration.load(preset, [*own, *pairs, *(text for text in overrides if not _of_another(text, family))])


def _of_another(override: str, family: str) -> bool:
    """Whether an override speaks of another family or of its stages, and so is for other rows."""
    words = override.partition("=")[0].split(".")
    if words[0] in STAGES:
        return words[0] != family
    of_stage = words[:2] in (["train", "pairs"], ["train", "stage_lr"]) and len(words) > 2
    known = {stage for stages in STAGES.values() for stage in stages}
    return of_stage and words[2] in known and words[2] not in STAGES[family]


def write_asked(table: Table) -> None:
    """Keeps what was asked, for the job that writes the table and for whoever writes it again."""
    values = {name: getattr(table, name) for name in ("preset", "overrides", "seeds")}
    files.write(Path(table.folder) / ASKED, json.dumps(values, indent=1) + "\n")


def read_asked(folder: str) -> Table:
    """The table whose folder it is.

    Raises:
        UserError: it is none.
    """
    try:
        asked = json.loads((Path(folder) / ASKED).read_text())
        return ask(asked["preset"], [*asked["overrides"], f"run={folder}"], asked["seeds"])
    except FileNotFoundError as error:
        raise UserError(f"{folder} holds no table 2; make one with `python launch/submit.py --job table2`") from error
    except UserError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}/{ASKED} is damaged ({error}); give the command of the table again") from error


def complete(config: Config) -> bool:
    """Whether a run has nothing left to train.

    Raises:
        UserError: the folder holds a run that was made with other settings.
    """
    facts = runs.facts(config.run, schedule.SCHEMA)
    if facts:
        schedule.check(config, facts, f"{config.run}/checkpoints/{runs.newest_checkpoint(config.run)}")
    return schedule.complete(config, facts)


def evaluation(config: Config) -> tuple[dict, str]:
    """RUN/evaluation.json if it is of the run's weights and test shards as they are now; else empty, and why."""
    run = Path(config.run)
    try:
        found = evaluation_file.read(run / "evaluation.json")
        evaluation_file.answer(found)
        weights = _sha256(run / "generator.safetensors")
    except OSError as error:
        return {}, f"no {Path(error.filename).name}"
    except UserError as error:
        return {}, str(error)
    if found.get("generator_sha256") != weights:
        return {}, "evaluation.json is of other weights"
    root = config.data.root
    if (Path(root) / "manifest.json").is_file():  # the nodes may have it alone
        if found.get("shards_fingerprint") != fingerprint(read_manifest(root, "test"), "test"):
            return {}, "evaluation.json is of other shards"
    return found, ""


def _sha256(file: Path) -> str:
    found = file.stat()
    return _hashed(file, found.st_size, found.st_mtime_ns)


@functools.cache
def _hashed(file: Path, _size: int, _changed: int) -> str:
    """A generator may have a gigabyte, and is asked about several times."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def parts(table: Table) -> list[Part]:
    """What is missing, in the order above. The last writes the table, and is always there.

    Raises:
        UserError: as `complete`.
    """
    missing = [run for run in table.runs if not complete(run.config)]
    begin = [run.shared for run in missing if run.shared and not runs.newest_checkpoint(run.config.run)]
    shared = {config.run: config for config in begin if not complete(config)}
    score = [run.config for run in table.runs if run in missing or evaluation(run.config)[1]]
    todo = [
        Part("train", STAGE, list(shared.values())),
        Part("train", ON_IT, [run.config for run in missing if run.shared]),
        Part("train", "rows of their own", [run.config for run in missing if not run.shared]),
        Part("evaluate", "the scores", score),
    ]
    todo = [part for part in todo if part.runs] + [Part("table2", "the table", [])]
    for place, part in enumerate(todo):
        if part.kind != "train":
            part.after = list(range(place))
        elif part.title == ON_IT:
            part.after = [before for before in range(place) if todo[before].title == STAGE]
    return todo


def ready(table: Table, part: Part) -> tuple[list[Config], list[str]]:
    """The runs of a part that may begin now that the parts before it have ended, and a line on each that may not."""
    rows = {run.config.run: run for run in table.runs}
    go, no = [], []
    for config in part.runs:
        run = rows.get(config.run)
        why = ""
        weights = Path(config.run) / "generator.safetensors"
        if run and part.kind == "evaluate" and not (complete(config) and weights.is_file()):
            why = missing(run)
        if run and part.kind == "train" and run.shared and not runs.newest_checkpoint(config.run):
            why = "" if complete(run.shared) else missing(run)
        if why:
            no.append(f"{config.run} is left out: {why}")
        else:
            go.append(config)
    return go, no


def missing(run: Run) -> str:
    """Why a row with a seed has no scores; empty if it has them."""
    config = run.config
    pairs, facts = schedule.schedule(config.family, config.train.pairs)[-1].end, runs.facts(config.run, schedule.SCHEMA)
    if not facts and run.shared and not complete(run.shared):
        return f"the stage that it shares is not complete: {_ended(run.shared.run, 'train')}"
    if not schedule.complete(config, facts):
        return f"trained {facts.get('pairs', 0):,} of {pairs:,} pairs: {_ended(config.run, 'train')}"
    why = evaluation(config)[1]
    return f"trained, but not scored ({why}): {_ended(config.run, 'evaluate')}" if why else ""


def _ended(run: str, kind: str) -> str:
    """How the last attempt of a kind ended there."""
    try:
        lines = (Path(run) / "attempts.jsonl").read_text().splitlines()
    except FileNotFoundError:
        lines = []
    notes = []
    for line in lines:
        try:
            note = json.loads(line)
            notes += [note] if note["launch"].startswith(f"mscgan-{kind}-") else []
        except (ValueError, KeyError, TypeError):
            continue  # half a line, from a disk that was full
    if not notes:
        return f"no {kind} job of {run} has begun"
    if notes[-1]["event"] == "start":
        return f"the {kind} job of {run} has not noted its end"
    return f"the {kind} job of {run} ended: {notes[-1]['outcome']} (exit code {notes[-1]['code']})"


def check_free(table: Table) -> None:
    """Refuses to queue scores or the table twice; who trains a run launch/guard.py knows.

    Raises:
        UserError: a job of an earlier start waits or runs.
    """
    folder = Path(table.folder).absolute()
    plans = runs.readable([found for found in runs.registered() if found.is_relative_to(folder)])
    scored = [plan for plan in plans if plan.kind in ("evaluate", "table2")]
    known = states.ask(scored)
    for plan in scored:
        if job := states.alive(plan, known):
            raise UserError(
                f"job {job} ({plan.kind}) of {table.folder} waits or runs; wait for it, or stop it with "
                f"`python launch/jobs.py cancel {job}`"
            )
