"""Scores images that any model made: `python -m mscgan.evaluate folder --generated DIR --target DIR`

    --source DIR          the source images: a copy of them is the baseline
    --annotations CSV     the field's keypoint file, or the shards that the images come from: with it, the scores within
                          masks. Shards of your own pictures have other names and pixels than these (sources.csv there)
    --pairs CSV           a from,to list: exactly its pairs are scored, in its order
    --scores A,B --estimator NAME --out FILE.json

Files are matched by name, never by order (mscgan/output_names.py has the names that public programs write; triptychs
need no --target). Prints a table and writes DIR/evaluation.json and DIR/evaluation-pairs.csv. The scores are those of
`python -m mscgan.evaluate --run RUN`; the real images of FID are the targets, each once.
"""

import argparse
from pathlib import Path

from mscgan import evaluation, image_folder
from mscgan.arguments import Parser
from mscgan.checks import check_apart, check_place
from mscgan.errors import say
from mscgan.estimators import ESTIMATORS
from mscgan.paths import a_path, path_text
from mscgan.scored import FolderImages


def evaluate_folder(
    generated: Path,
    target: Path | None = None,
    source: Path | None = None,
    annotations: Path | None = None,
    pairs: Path | None = None,
    scores: tuple[str, ...] = (),
    out: Path | None = None,
    estimator: str = ESTIMATORS[0],
) -> dict | None:
    """Scores a folder; says and writes it as evaluation.evaluate.

    Raises:
        UserError: what image_folder.match and evaluation.evaluate raise; an unknown score.
    """
    wanted = evaluation.choose(scores)
    parts = [*(["+".join(wanted)] if scores else []), *evaluation.by_estimator(scores, estimator)]
    out = out or generated / ("-".join(["evaluation", *parts]) + ".json")
    check_place(out, "--out")
    for path in (out, evaluation.of_pairs(out)):
        check_apart(path, "--out", [given for given in (annotations, pairs) if given])
    matched = image_folder.match(generated, target, source, pairs)
    for note in matched.notes:
        say(f"note: {note}")
    scored = FolderImages(matched, annotations)
    about = {
        "split": "",
        "dataset": str(generated.absolute()),
        "pairs": len(matched.rows),
        "pairs_in_split": len(matched.rows),
        "pairs_chosen": f"those of {pairs}" if pairs else "all",
        "images_fingerprint": scored.fingerprint,
        "targets_fingerprint": scored.targets_fingerprint,
        "audit": {"images": len({*scored.sources, *scored.targets} - {""}), "notes": list(matched.notes)}
        | scored.audit,
    }
    return evaluation.evaluate(scored, wanted, about, out, estimator)


def main(arguments: list[str]) -> None:
    parser = Parser(
        prog="python -m mscgan.evaluate folder",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--generated", type=a_path, required=True, metavar="DIR", help="the images to score")
    parser.add_argument("--target", type=a_path, metavar="DIR", help="the true images")
    parser.add_argument("--source", type=a_path, metavar="DIR", help="the source images")
    parser.add_argument("--annotations", type=a_path, metavar="CSV|SHARDS", help="keypoints of targets and sources")
    parser.add_argument("--pairs", type=a_path, metavar="CSV", help="a from,to list of the pairs to score")
    parser.add_argument("--scores", default="", metavar="A,B", help="which (mscgan/scoring.py); all by default")
    parser.add_argument("--estimator", type=path_text, metavar="NAME", help="as for a run")
    parser.add_argument("--out", type=a_path, metavar="FILE", help="the JSON file to write")
    options = parser.parse_args(arguments)
    scores = tuple(filter(None, options.scores.split(",")))
    evaluate_folder(
        options.generated,
        options.target,
        options.source,
        options.annotations,
        options.pairs,
        scores,
        options.out,
        evaluation.estimator_of(scores, options.estimator),
    )
