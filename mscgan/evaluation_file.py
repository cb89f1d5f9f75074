"""evaluation.json, as the evaluator writes it: the one reader, for whoever compares, reports or tabulates scores.

    schema        SCHEMA
    scores        {method: {score: {"value", "low", "high", "pairs"}}}; low and high are null where there is no interval
    differences   the same, of what a method adds to the one before
    left_out      {score: why it is not there}
    left_out_groups    {"METHOD/SCORE": the score of a set without each group of people}
    networks      {network: SHA-256 of its weights}; estimator: which one found the poses of pckh
    dataset, real, and what the evaluation was of (mscgan/evaluate.py, evaluate_folder.py)

It costs no torch, for the launcher's sake.
"""

import json
from pathlib import Path

from mscgan import files
from mscgan.errors import UserError

SCHEMA = 2
BASELINES = ("copy_source", "mean_image", "real")  # methods that nobody trained
LARGEST = 64 << 20  # bytes


def read(path: Path, needed: tuple[str, ...] = ()) -> dict:
    """The document at `path`: its scores are numbers, a method has some, and it has the keys `needed`.

    Raises:
        FileNotFoundError: there is none.
        UserError: it cannot be read, is damaged, or of another schema. Says so in a line, without what to do.
    """
    try:
        document = json.loads(files.read(path, LARGEST), parse_constant=_refuse)
        if not isinstance(document, dict):
            raise TypeError(f"a {type(document).__name__} where keys are expected")
        if (schema := document.get("schema", 1)) != SCHEMA:
            raise UserError(f"{path} is of schema {schema}, and this version reads {SCHEMA}")
        if lacking := [key for key in needed if key not in document]:
            raise KeyError(", ".join(lacking))
        _check(document)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is not what evaluate writes ({type(error).__name__}: {error})") from error
    return document


def answer(document: dict) -> str:
    """The method that the family, or the folder, answers with.

    Raises:
        UserError: only baselines have scores.
    """
    methods = [method for method in document["scores"] if method not in BASELINES]
    if not methods:
        raise UserError("only the baselines have scores")
    return methods[-1]


def _refuse(word: str) -> float:
    raise ValueError(f"{word} stands for a number")


def _check(document: dict) -> None:
    for part in ("scores", "differences"):
        for method, cells in document[part].items():
            for score, cell in cells.items():
                numbers = [cell[key] for key in ("value", "low", "high")]
                if not all(_is_number(n) or (n is None and place) for place, n in enumerate(numbers)):
                    raise TypeError(f"{part}: {score} of {method} is {numbers}")
    if not any(document["scores"].values()):
        raise ValueError("no method has scores")
    if not all(isinstance(why, str) for why in document["left_out"].values()):
        raise TypeError("left_out: a reason is no text")
    for name, rest in document.get("left_out_groups", {}).items():
        method, _, score = name.partition("/")
        if score not in document["scores"].get(method, {}) or not all(map(_is_number, rest)):
            raise ValueError(f"left_out_groups: {name}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
