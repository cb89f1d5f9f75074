"""evaluation.json, as `python -m mscgan.evaluate` writes it, and the tables of the page that are made of it.

Scores stand in one table only where they were taken on the same pairs of the same shards.
"""

import math
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mscgan import evaluation_file
from mscgan.errors import UserError
from mscgan.evaluation_file import BASELINES

LISTED = 12  # entries of a list in the audit

HIGHER, LOWER, ONE = "higher is better", "lower is better", "the target's is 1"
ARROWS = {HIGHER: "↑", LOWER: "↓", ONE: "→ 1"}
TITLES = {  # of the columns, in their order; what is better; digits
    "ssim_A": ("SSIM A", HIGHER, 3),
    "ssim_B": ("SSIM B", HIGHER, 3),
    "ssim_B_padded": ("SSIM B, padded", HIGHER, 3),
    "ssim_gfla": ("SSIM of GFLA", HIGHER, 3),
    "mask_ssim_A": ("mask-SSIM A", HIGHER, 3),
    "mask_ssim_A_target": ("mask-SSIM A, target's mask", HIGHER, 3),
    "mask_ssim_B": ("mask-SSIM B", HIGHER, 3),
    "l1": ("L1", LOWER, 3),
    "sharpness": ("sharpness", ONE, 3),
    "lpips": ("LPIPS", LOWER, 3),
    "pckh": ("PCKh", HIGHER, 3),
    "pck_torso": ("PCK, torso", HIGHER, 3),
    "is": ("IS", HIGHER, 2),
    "is_any_order": ("IS, any order", HIGHER, 2),
    "mask_is": ("mask-IS", HIGHER, 2),
    "fid": ("FID", LOWER, 2),
    "fid_gfla": ("FID of GFLA", LOWER, 2),
}


@dataclass(frozen=True)
class Score:
    value: float
    low: float | None  # of the 95 % interval; None where there is none
    high: float | None


Scores = dict[str, dict[str, Score]]  # of a method or a difference, by the score's name


@dataclass(frozen=True)
class Evaluation:
    """What the page takes from RUN/evaluation.json."""

    version: str
    dataset: str
    split: str
    pairs: int
    pairs_in_split: int
    pairs_chosen: str
    people: int
    shards: str
    shards_fingerprint: str
    config_sha256: str
    generator_sha256: str
    protocols: dict[str, str]
    left_out: dict[str, str]
    audit: dict[str, str]
    scores: Scores
    differences: Scores

    @property
    def answer(self) -> str:
        """The last method: what the family answers with."""
        return list(self.scores)[-1]

    @property
    def pairs_told(self) -> str:
        chosen = "" if self.pairs == self.pairs_in_split else f" of {self.pairs_in_split:,}, {self.pairs_chosen}"
        return f"{self.dataset}, split {self.split}: {self.pairs:,} pairs{chosen}, {self.people:,} people"


def command(run: Path) -> str:
    """What scores a run."""
    return f"python -m mscgan.evaluate --run {shlex.quote(str(run))}"


def read_evaluation(run: Path) -> Evaluation | None:
    """The scores of a run; None where it has none.

    Raises:
        UserError: evaluation.json cannot be read, is none, or of another schema.
    """
    path = run / "evaluation.json"
    if not path.exists():
        return None
    again = f"run again: {command(run)}"
    try:
        return _evaluation(evaluation_file.read(path))
    except UserError as error:
        raise UserError(f"{error}; {again}") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{path} is not what evaluate writes ({type(error).__name__}: {error}); {again}") from error


def _evaluation(found: dict) -> Evaluation:
    return Evaluation(
        version=str(found["version"]),
        dataset=str(found["dataset"]),
        split=str(found["split"]),
        pairs=int(found["pairs"]),
        pairs_in_split=int(found["pairs_in_split"]),
        pairs_chosen=str(found["pairs_chosen"]),
        people=int(found["people"]),
        shards=str(found["shards"]),
        shards_fingerprint=str(found["shards_fingerprint"]),
        config_sha256=str(found["config_sha256"]),
        generator_sha256=str(found["generator_sha256"]),
        protocols=_texts(found["protocols"]),
        left_out=_texts(found["left_out"]),
        audit=_texts(found["audit"]),
        scores=_scores(found["scores"]),
        differences=_scores(found["differences"]),
    )


def _texts(found: dict) -> dict[str, str]:
    return {name: _said(value) for name, value in found.items()}


def _said(value: object) -> str:
    if not isinstance(value, list):
        return str(value)
    more = f" and {len(value) - LISTED} more" if len(value) > LISTED else ""
    return (", ".join(map(str, value[:LISTED])) or "none") + more


def _scores(found: dict) -> Scores:
    return {method: {name: _score(one) for name, one in scores.items()} for method, scores in found.items()}


def _score(found: dict) -> Score:
    low, high = found["low"], found["high"]
    interval = (None, None) if low is None or high is None else (float(low), float(high))
    score = Score(float(found["value"]), *interval)
    if not all(math.isfinite(value) for value in (score.value, score.low or 0.0, score.high or 0.0)):
        raise ValueError("a number has no end")
    return score


@dataclass(frozen=True)
class Cell:
    value: str
    interval: str
    mark: str  # "best"; of a difference "better", "worse" or "differs"; or ""


@dataclass(frozen=True)
class Column:
    title: str
    arrow: str
    meaning: str


@dataclass(frozen=True)
class Table:
    caption: str
    columns: list[Column]
    runs: dict[str, list[tuple[str, list[Cell]]]]  # by run: method or difference, and a cell a column


def tables(scored: list[tuple[str, Evaluation]]) -> list[Table]:
    """The scores of runs, by their names: a table for each set of pairs. Of each column the best of what the runs make
    is marked."""
    result = []
    for group in _same_pairs(scored):
        made = [scores for _, found in group for method, scores in found.scores.items() if method not in BASELINES]
        best = {name: _best(name, [scores[name].value for scores in made if name in scores]) for name in TITLES}

        def mark(name: str, score: Score, best: dict = best) -> str:
            return "best" if score.value == best.get(name) else ""

        result.append(_table(group[0][1].pairs_told, {name: found.scores for name, found in group}, mark))
    return result


def difference_tables(scored: list[tuple[str, Evaluation]]) -> list[Table]:
    """The differences within each run, of the same pairs' scores; those whose interval has no 0 in it are marked."""
    result = []
    for group in _same_pairs(scored):
        if rows := {name: found.differences for name, found in group if found.differences}:
            result.append(_table(group[0][1].pairs_told, rows, _verdict, sign="+"))
    return result


def _same_pairs(scored: list[tuple[str, Evaluation]]) -> list[list[tuple[str, Evaluation]]]:
    groups: dict[tuple, list[tuple[str, Evaluation]]] = {}
    for name, found in scored:
        key = (found.dataset, found.split, found.pairs, found.pairs_chosen, found.shards_fingerprint)
        groups.setdefault(key, []).append((name, found))
    return list(groups.values())


def _best(name: str, values: list[float]) -> float | None:
    better = TITLES[name][1]
    if not values:
        return None
    if better == ONE:
        return min(values, key=lambda value: abs(value - 1))
    return max(values) if better == HIGHER else min(values)


def _verdict(name: str, score: Score) -> str:
    if score.low is None or score.high is None or score.low <= 0 <= score.high:
        return ""
    better = TITLES.get(name, ("", "", 0))[1]
    if better not in (HIGHER, LOWER):
        return "differs"
    return "better" if (score.value > 0) == (better == HIGHER) else "worse"


def _table(caption: str, runs: dict[str, Scores], mark: Callable[[str, Score], str], sign: str = "") -> Table:
    there = dict.fromkeys(name for rows in runs.values() for scores in rows.values() for name in scores)
    names = [name for name in TITLES if name in there] + [name for name in there if name not in TITLES]
    titles = [TITLES.get(name, (name, "", 3)) for name in names]

    def cell(name: str, digits: int, scores: dict[str, Score]) -> Cell:
        if name not in scores:
            return Cell("–", "", "")
        score, form = scores[name], f"{sign}.{digits}f"
        between = f"{score.low:{form}} to {score.high:{form}}" if score.low is not None else ""
        return Cell(f"{score.value:{form}}".replace("-", "−"), between.replace("-", "−"), mark(name, score))

    return Table(
        caption,
        [Column(title, ARROWS.get(better, ""), better) for title, better, _ in titles],
        {
            run: [
                (_readable(method), [cell(name, digits, scores) for name, (*_, digits) in zip(names, titles)])
                for method, scores in rows.items()
            ]
            for run, rows in runs.items()
        },
    )


def _readable(method: str) -> str:
    return method.replace("_", " ").replace(" - ", " − ")
