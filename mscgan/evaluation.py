"""One evaluation, whatever is scored: which scores, their numbers over the ranks, the document and the files."""

import csv
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from mscgan import dist, files, lease, summary
from mscgan.chunks import Chunks
from mscgan.errors import UserError
from mscgan.estimators import ESTIMATORS
from mscgan.evaluation_file import BASELINES, SCHEMA
from mscgan.scored import Scored
from mscgan.scorers import Networks
from mscgan.scoring import INTERVAL, OF_PIXELS, OF_POSES, SCORES, Arrays, inapplicable

Result = TypeVar("Result")


def choose(names: Sequence[str]) -> list[str]:
    """The scores with these names, all where none is named, in the order of SCORES.

    Raises:
        UserError: there is no such score.
    """
    for name in names:
        if name not in SCORES:
            raise UserError(f"no score {name!r}; choose some of {', '.join(SCORES)}")
    return [name for name in SCORES if not names or name in names]


def of_pairs(out: Path) -> Path:
    """The file of every pair's scores, beside the document."""
    return out.with_name(f"{out.stem}-pairs.csv")


def estimator_of(names: Sequence[str], given: str | None) -> str:
    """Who finds the poses for these scores: the estimator that was given, or the one of always.

    names: as of `choose`.

    Raises:
        UserError: one was given, and none of the scores needs poses.
    """
    if given and OF_POSES.keys().isdisjoint(choose(names)):
        raise UserError(
            f"--estimator {given} does nothing here: it finds the poses of {' and '.join(OF_POSES)} alone; leave it "
            "away, or add one of these to --scores"
        )
    return given or ESTIMATORS[0]


def by_estimator(names: Sequence[str], estimator: str) -> list[str]:
    """What the name of an evaluation of these scores says of who finds the poses: nothing where it is as always.

    names: as of `choose`.
    """
    finds = not OF_POSES.keys().isdisjoint(choose(names))
    return [f"by-{Path(estimator).name}"] if finds and estimator != ESTIMATORS[0] else []


def evaluate(
    scored: Scored, wanted: list[str], about: dict, out: Path, estimator: str, ranks: dist.Ranks | None = None
) -> dict | None:
    """Scores what is there to score, prints the table, and writes `out` and OUT-pairs.csv. Every rank calls it.

    Args:
        about: what the document says of the images.
        estimator: the name of the one that finds the poses (mscgan/estimators.py), where a score needs them.
        ranks: with whom the work is shared; None: with nobody.

    Returns:
        The document, on rank 0; None on the others.

    Raises:
        UserError: another process writes this file, the ranks have not the same weights, or a file cannot be written.
    """
    owner = _on_rank_0(ranks, lambda: _own(out))
    try:
        left_out, networks = _left_out(scored, wanted, estimator, ranks)
        scores = [score for score in wanted if score not in left_out]
        if not scores:
            raise UserError(f"no score is left: {'; '.join(dict.fromkeys(left_out.values()))}")
        key = json.dumps([about, scores, networks.sha256, scored.real_key, version("mscgan"), SCHEMA], sort_keys=True)
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        chunks = Chunks(out.with_name(f".{out.name}.{digest}"), ranks)
        arrays = chunks.pairs(scored, scores, networks, _baselines(scored, scores, networks))
        compared = [score for score in scores if score.startswith("fid")]
        real = chunks.real(scored, networks, _features(scored, compared, networks)) if compared else {}
        about = about | {"left_out": left_out} | ({"estimator": estimator} if networks.estimator else {})
        return _on_rank_0(ranks, lambda: _finish(scored, scores, arrays, real, about, networks.sha256, out))
    finally:
        if owner:
            owner.release()


def _on_rank_0(ranks: dist.Ranks | None, action: Callable[[], Result]) -> Result | None:
    return dist.on_rank_0(action) if ranks else action()


def _features(scored: Scored, scores: list[str], networks: Networks) -> Path:
    """The file of the user's cache that keeps the features of these real images."""
    return _cache("features", scored.real_key, scores, networks.sha256).with_suffix(".npz")


def _baselines(scored: Scored, scores: list[str], networks: Networks) -> Path | None:
    """The folder of the user's cache that keeps what the baselines of these pairs score, by this very code."""
    code = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("**/*.py"))))
    of_pixels = [score for score in scores if score in OF_PIXELS]
    facts = scored.pairs_key, of_pixels, networks.device.type, code.hexdigest()
    return _cache("baselines", *facts) if scored.pairs_key and of_pixels else None


def _cache(kind: str, *facts: object) -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return Path(home, "mscgan", kind, digest[:32])


def _own(out: Path) -> lease.Lease:
    """Makes this process the one that writes `out`, so that two evaluations never share their half-done numbers."""
    out.parent.mkdir(parents=True, exist_ok=True)
    return lease.take(out.parent, f".{out.name}.lease")


def _left_out(
    scored: Scored, wanted: list[str], estimator: str, ranks: dist.Ranks | None
) -> tuple[dict[str, str], Networks]:
    """Which scores cannot be had, and why; and the networks of those that can."""
    size = len(scored.targets), scored.real, scored.height, scored.width
    left_out = {score: why for score in wanted if (why := inapplicable(score, *size, scored.masks))}
    device = ranks.device if ranks else torch.device("cuda" if torch.cuda.is_available() else "cpu")
    networks = Networks([score for score in wanted if score not in left_out], device, estimator)
    left_out |= networks.left_out
    if ranks:
        of_ranks = dist.gather(sorted(left_out))
        if any(theirs != of_ranks[0] for theirs in of_ranks):
            raise UserError(f"the nodes have not the same weights; left out by rank: {of_ranks}. Fetch them on each")
    return left_out, networks


def _finish(
    scored: Scored,
    scores: list[str],
    arrays: Arrays | None,
    real: Arrays | None,
    about: dict,
    networks: dict[str, str],
    out: Path,
) -> dict:
    """Says and writes what all ranks have found."""
    assert arrays is not None and real is not None, "rank 0 has them"
    made = dict.fromkeys(name.split("/")[0] for name in arrays if not name.startswith("target/"))
    unit = {summary.UNIT.split("/")[0]} if "sharpness" in scores else set()
    baselines = [method for method in BASELINES if method in made.keys() | unit]
    methods = [*baselines, *(method for method in made if method not in BASELINES)]
    pairs = summary.of_pairs(arrays, scores, methods)
    sets = summary.of_sets(arrays, real, scores, methods, scored.people)
    skipped = [score for score in scores if score in OF_POSES and np.isnan(pairs[f"{methods[-1]}/{score}"]).all()]
    about["left_out"] |= dict.fromkeys(skipped, "no target shows the joints that it is measured by")
    scores = [score for score in scores if score not in skipped]
    if not scores:
        raise UserError(f"no score is left: {'; '.join(dict.fromkeys(about['left_out'].values()))}")
    of_model = [method for method in methods if method not in BASELINES]
    document = {
        "schema": SCHEMA,
        "version": version("mscgan"),
        **about,
        "people": len(np.unique(scored.people)),
        "real": scored.real_are,
        "protocols": {score: SCORES[score].text for score in scores} | {"interval": INTERVAL},
        "scores": summary.table(pairs, sets, scores, methods, scored.people),
        "differences": summary.differences(pairs, sets, scores, of_model, scored.people),
        "networks": networks,
        "left_out_groups": {name: rest.tolist() for name, (_, rest) in sets.items()},
    }
    print(format_table(document), flush=True)
    try:
        files.write(of_pairs(out), _csv(scored, pairs))
        files.write(out, json.dumps(document, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror}); give another file with --out") from error
    for path in out.parent.iterdir():  # of this evaluation, and of those that a kill ended
        if re.fullmatch(rf"{re.escape(f'.{out.name}.')}[0-9a-f]{{16}}", path.name) and path.is_dir():
            shutil.rmtree(path)
    print(out)
    return document


def _csv(scored: Scored, pairs: dict[str, np.ndarray]) -> str:
    methods = list(dict.fromkeys(name.split("/")[0] for name in pairs))
    scores = list(dict.fromkeys(name.split("/")[1] for name in pairs))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "source", "target", "person", *scores])
    for method in methods:
        columns = [pairs.get(f"{method}/{score}") for score in scores]
        for row in range(len(scored.people)):
            numbers = ["" if column is None else f"{column[row]:.8g}" for column in columns]
            writer.writerow([method, scored.sources[row], scored.targets[row], scored.people[row], *numbers])
    return text.getvalue()


def format_table(document: dict) -> str:
    """The scores as text, a line a score; baselines without their intervals."""
    methods = document["scores"] | document["differences"]
    scores = list(dict.fromkeys(score for cells in methods.values() for score in cells))
    columns = {method: [_number(cells.get(score), method not in BASELINES) for score in scores]
               for method, cells in methods.items()}  # fmt: skip
    people = f", {document['people']} people" if document["people"] > 1 else ""
    lines = [
        f"{document['dataset']}: {document['pairs']} pairs{people}; value [95 % interval]; + higher, - lower is "
        "better, = the target's is 1",
        " " * 20 + "".join(f"{name.replace('_', ' '):>{_width(name, columns)}}" for name in columns),
    ]
    for row, score in enumerate(scores):
        better = {"higher": "+", "lower": "-", "1": "="}[SCORES[score].better]
        skipped = {document["pairs"] - cells[score]["pairs"] for cells in methods.values() if score in cells}
        note = f"  (without {max(skipped)} pairs)" if max(skipped) else ""
        cells = "".join(f"{column[row]:>{_width(name, columns)}}" for name, column in columns.items())
        lines.append(f"{score:<18}{better:>2}{cells}{note}")
    left_out = document["left_out"]
    for reason in dict.fromkeys(left_out.values()):
        lines.append(f"without {', '.join(score for score, why in left_out.items() if why == reason)}: {reason}")
    return "\n".join([*lines, *_of_audit(document.get("audit", {}))])


def _of_audit(audit: dict) -> list[str]:
    """What of the audit everybody should see."""
    lines = []
    if missing := audit.get("missing_joints"):
        without = f"; {audit['without_pose']} pairs without a pose" if audit["without_pose"] else ""
        of_sources, of_targets = (f"{100 * missing[whose]:.0f} %" for whose in ("source", "target"))
        lines.append(f"joints that are missing: {of_sources} of the sources', {of_targets} of the targets'{without}")
    if (shared := audit.get("shared")) and shared["items"]:
        lines.append(
            f"garments that train has in another colour: {shared['items']:,} of {shared['of_items']:,}, in "
            f"{shared['pairs']:,} of {shared['of_pairs']:,} pairs"
        )
    return lines


def _width(name: str, columns: dict[str, list[str]]) -> int:
    return 2 + max(map(len, [name, *columns[name]]))


def _number(cell: dict | None, with_interval: bool) -> str:
    if cell is None:
        return ""
    interval = f" [{cell['low']:.3f}, {cell['high']:.3f}]" if with_interval and cell["low"] is not None else ""
    return f"{cell['value']:.3f}{interval}"
