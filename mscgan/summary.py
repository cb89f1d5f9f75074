"""From the numbers of every pair and image to the scores of a method, with their intervals over people."""

from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np

from mscgan.metrics.frechet import frechet_distance, moments, without
from mscgan.metrics.inception_score import inception_score, inception_score_any_order
from mscgan.metrics.interval import GROUPS, Cell, groups_of, interval, of_mean
from mscgan.scorers import FEATURES
from mscgan.scoring import JOINTS, LEAST, NOT_AS_PAIRS, NOT_AS_SET, OF_POSES, SCORES, Arrays

UNIT = f"{NOT_AS_PAIRS}/sharpness"  # that of the targets, which all others are divided by
Table = dict[str, dict[str, dict]]  # {method or difference: {score: cell}}
OF_LOGITS: dict[str, Callable[[np.ndarray], float]] = {
    "is": inception_score, "is_any_order": inception_score_any_order, "mask_is": inception_score,
}  # fmt: skip


def of_pairs(arrays: Arrays, scores: list[str], methods: Iterable[str]) -> dict[str, np.ndarray]:
    """{"METHOD/SCORE": (N,)} as reported: sharpness over the mean of the targets', whose own is UNIT's; and of poses
    also "METHOD/pckh_joints", which weigh the pairs. NaN: the score skips the pair."""
    unit = np.mean(arrays["target/sharpness"]) or 1.0
    of_targets = {UNIT: arrays["target/sharpness"] / unit} if "sharpness" in scores else {}
    return of_targets | {
        f"{method}/{score}": arrays[f"{method}/{score}"] / (unit if score == "sharpness" else 1.0)
        for method in methods
        for name in scores
        if SCORES[name].kind == "pairs" and (name in OF_POSES or method != NOT_AS_PAIRS)
        for score in ((name, name + JOINTS) if name in OF_POSES else (name,))
    }


def of_sets(
    arrays: Arrays, real: Arrays, scores: list[str], methods: Iterable[str], people: np.ndarray
) -> dict[str, tuple[float, np.ndarray]]:
    """{"METHOD/SCORE": (the score, (K,) the same without each group of people)}; K = 0 where there are too few people
    or images for it."""
    groups = groups_of(people)
    most = np.bincount(groups).max()
    found = {}
    for method in methods:
        for score in scores if method != NOT_AS_SET else ():
            if SCORES[score].kind != "sets":
                continue
            features = arrays[f"{method}/{FEATURES[score]}"]
            several = list(np.unique(groups)) if len(features) - most >= LEAST[score] else []
            if score in OF_LOGITS:
                number = OF_LOGITS[score]
                value, rest = number(features), [number(features[groups != group]) for group in several]
            else:
                whole, of_real = moments(features), moments(real[FEATURES[score]])
                value = frechet_distance(whole, of_real)
                rest = [frechet_distance(without(whole, features[groups == group]), of_real) for group in several]
            found[f"{method}/{score}"] = value, np.array(rest)
    return found


def table(
    pairs: dict[str, np.ndarray],
    sets: dict[str, tuple[float, np.ndarray]],
    scores: list[str],
    methods: list[str],
    people: np.ndarray,
) -> Table:
    """A cell, {"value", "low", "high", "pairs"}, for each method and score that there is."""
    counts = np.bincount(groups_of(people), minlength=GROUPS)
    counts = counts[counts > 0]
    result: Table = {}
    for method in methods:
        for score in scores:
            name = f"{method}/{score}"
            if name in pairs:
                values, units = pairs[name], pairs[UNIT] if score == "sharpness" else None
                if name + JOINTS in pairs:
                    values, units = values * pairs[name + JOINTS], pairs[name + JOINTS]
                cell = _of_those_that_count(values, people, units)
            elif name in sets:
                value, rest = sets[name]
                cell = _cell(interval(value, rest, counts) if len(rest) else Cell(value, None, None), len(people))
            else:
                continue
            result.setdefault(method, {})[score] = cell
    return result


def differences(
    pairs: dict[str, np.ndarray],
    sets: dict[str, tuple[float, np.ndarray]],
    scores: list[str],
    methods: list[str],
    people: np.ndarray,
) -> Table:
    """The table of what each method adds to the one before, over the same pairs: "stage_II - stage_I"."""
    added: tuple[dict, dict] = ({UNIT: pairs[UNIT]} if UNIT in pairs else {}, {})
    names = []
    for before, method in pairwise(methods):
        names.append(f"{method} - {before}")
        for score in scores:
            of_both = [f"{one}/{score}" for one in (method, before)]
            if all(name in pairs for name in of_both):
                added[0][f"{names[-1]}/{score}"] = pairs[of_both[0]] - pairs[of_both[1]]
                if (joints := of_both[0] + JOINTS) in pairs:
                    added[0][f"{names[-1]}/{score}{JOINTS}"] = pairs[joints]
            elif all(name in sets for name in of_both):
                (value, rest), (value_before, rest_before) = (sets[name] for name in of_both)
                added[1][f"{names[-1]}/{score}"] = value - value_before, rest - rest_before
    return table(*added, scores, names, people)


def _of_those_that_count(values: np.ndarray, people: np.ndarray, units: np.ndarray | None) -> dict:
    there = ~np.isnan(values)
    of_those = None if units is None or not units.any() else units[there]  # targets of one colour: nothing to divide by
    return _cell(of_mean(values[there], people[there], of_those), int(there.sum()))


def _cell(cell: Cell, pairs: int) -> dict:
    return cell._asdict() | {"pairs": pairs}
