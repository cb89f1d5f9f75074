"""Two evaluations of the same pairs side by side: `python -m mscgan.evaluate compare RUN RUN`

The second's answer minus the first's, pair by pair, so that what is easy or hard about a pair drops out: an interval
that holds 0 means that these pairs do not tell the two apart. RUN is a run's folder or the path of an evaluation.json.
"""

import csv
from pathlib import Path

import numpy as np

from mscgan import evaluation_file, summary
from mscgan.arguments import Parser
from mscgan.errors import UserError
from mscgan.evaluation import format_table
from mscgan.paths import a_path
from mscgan.scorers import NEEDS
from mscgan.scoring import JOINTS, NOT_AS_PAIRS, SCORES
from mscgan.summary import UNIT

NEEDED = ("dataset", "pairs", "people", "real", "left_out_groups")
Sets = dict[str, tuple[float, np.ndarray]]


def read(path: Path) -> dict:
    """The document of an evaluation: of a run's folder, or at this path.

    Raises:
        UserError: there is none, it is damaged, or an older version wrote it.
    """
    file = path / "evaluation.json" if path.is_dir() else path
    try:
        return evaluation_file.read(file, NEEDED)
    except FileNotFoundError as error:
        raise UserError(f"no {file}; score the run first with python -m mscgan.evaluate --run {file.parent}") from error
    except UserError as error:
        raise UserError(f"{error}; score the run again") from error


def compare(first: Path, second: Path) -> dict:
    """A document with the answers of both, "first" and "second", and the difference of the two.

    Raises:
        UserError: one is not there, or they are not of the same pairs.
    """
    documents = [read(path) for path in (first, second)]
    for key, what in (("shards_fingerprint", "shards"), ("targets_fingerprint", "target images")):
        of_both = [document.get(key) for document in documents]
        if all(of_both) and of_both[0] != of_both[1]:
            raise UserError(f"{first} and {second} are of different {what}; score both on the same")
    left_out = {}
    if documents[0]["real"] != documents[1]["real"]:
        why = f"the real images are {documents[0]['real']} and {documents[1]['real']}"
        left_out = dict.fromkeys(("fid", "fid_gfla"), why)
    answers = [evaluation_file.answer(document) for document in documents]
    tables = [_pairs(path, answer) for path, answer in zip((first, second), answers, strict=True)]
    if tables[0][0] != tables[1][0]:
        raise UserError(f"{first} and {second} do not list the same pairs in the same order; score the same pairs")
    people = np.array(tables[0][1])
    names = ("first", "second")
    pairs: dict[str, np.ndarray] = {}
    sets: Sets = {}
    for name, document, answer, (_, _, columns) in zip(names, documents, answers, tables, strict=True):
        pairs |= {f"{name}/{score}": values for score, values in columns.items()}
        sets |= {f"{name}/{score}": numbers for score, numbers in _sets(document, answer).items()}
    cells = [document["scores"][answer] for document, answer in zip(documents, answers, strict=True)]
    for score, kind in NEEDS.items():
        digests = [document.get("networks", {}).get(kind.__name__) for document in documents]
        if digests[0] != digests[1]:
            left_out[score] = "the two were scored by networks with other weights"
    scores = [score for score in cells[0] if score in cells[1] and score not in left_out]
    if "sharpness" in scores:
        pairs[UNIT] = _pairs(first, NOT_AS_PAIRS)[2]["sharpness"]
    return {
        **{key: documents[0][key] for key in ("dataset", "pairs", "people")},
        "left_out": left_out,
        "scores": summary.table(pairs, sets, scores, list(names), people),
        "differences": summary.differences(pairs, sets, scores, list(names), people),
    }


def _pairs(path: Path, method: str) -> tuple[list[tuple[str, str]], list[str], dict[str, np.ndarray]]:
    """(source, target) of each pair, its person, and its scores of the method."""
    path = path if path.is_file() else path / "evaluation.json"
    path = path.with_name(f"{path.stem}-pairs.csv")
    try:
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["method"] == method]
        named = [(row["source"], row["target"]) for row in rows]
        there = [name for name, number in (rows[0] if rows else {}).items() if number]
        scores = [name for name in there if name.removesuffix(JOINTS) in SCORES]
        columns = {score: np.array([float(row[score]) for row in rows]) for score in scores}
        return named, [row["person"] for row in rows], columns
    except FileNotFoundError as error:
        raise UserError(f"no {path}; score the run again") from error
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}); score the run again") from error


def _sets(document: dict, method: str) -> Sets:
    return {
        name.split("/")[1]: (document["scores"][method][name.split("/")[1]]["value"], np.array(rest))
        for name, rest in document["left_out_groups"].items()
        if name.split("/")[0] == method
    }


def main(arguments: list[str]) -> None:
    parser = Parser(prog="python -m mscgan.evaluate compare", description=__doc__.split("\n")[0])
    parser.add_argument("first", type=a_path, metavar="RUN", help="a run's folder, or an evaluation.json")
    parser.add_argument("second", type=a_path, metavar="RUN", help="another, of the same pairs")
    options = parser.parse_args(arguments)
    print(f"first: {options.first}\nsecond: {options.second}")
    print(format_table(compare(options.first, options.second)))
