"""table2.json as Markdown and as LaTeX: the same lines and notes."""

import re
from collections.abc import Callable, Iterator

DATA = {"market1501": "Market-1501", "deepfashion": "DeepFashion"}  # the paper's data sets, by the shards' names
NONE = "–"
OURS, THEIRS = "ours", "published"


def markdown(document: dict) -> str:
    """The table with its notes."""
    head, *lines = _lines(document, lambda text: f"`{text}`")
    rule = [":--", ":--", ":--", *["--:"] * (len(head) - 3)]
    rows = [f"| {' | '.join(cells)} |" for cells in [head, rule, *lines]]
    notes = [f"- {note}" for note in _notes(document, lambda text: f"`{text}`")]
    return "\n".join([f"# {_title(document)}", "", *rows, "", *notes]) + "\n"


def latex(document: dict) -> str:
    """A table environment that needs no package, its notes below the lines."""
    head, *lines = _lines(document, lambda text: text)
    rows = [f"{' & '.join(map(_escaped, cells))} \\\\" for cells in [head, *lines]]
    columns = "lll" + "r" * (len(head) - 3)
    return "\n".join([
        "\\begin{table*}", "\\centering\\footnotesize", f"\\caption{{{_escaped(_title(document))}}}",
        f"\\begin{{tabular}}{{{columns}}}", "\\hline", rows[0], "\\hline", *rows[1:], "\\hline", "\\end{tabular}", "",
        *(f"{_escaped(note)}\n" for note in _notes(document, lambda text: text)), "\\end{table*}", "",
    ])  # fmt: skip


def _title(document: dict) -> str:
    data = " and ".join(DATA.get(name, name) for name in document["data"]) or "no data yet"
    seeds = len(document["seeds"])
    return f"Table 2: our scores on {data} ({seeds} seed{'s' * (seeds > 1)} a row) beside the published ones"


def _lines(document: dict, code: Callable[[str], str]) -> Iterator[list[str]]:
    """The heads, then each row of ours with the paper's of the same model below it, the rows of others, references."""
    columns = document["columns"]
    heads = [f"{title} ({code(score)})" for score, title in columns.items()]
    yield ["model", "scores", "data", *heads, "test pairs", "training pairs", "steps", "base"]
    published = {row["title"]: row for row in document["published"]}
    for row in document["rows"]:
        budget = row["budget"]
        pairs = " + ".join(f"{stage} {count:,}" for stage, count in budget["pairs"].items())
        yield [row["title"], OURS, _data(row["data"]), *(_cell(row["scores"][score]) for score in columns),
               _number(row["test_pairs"]), pairs, f"{budget['steps']:,}", str(budget["base"])]  # fmt: skip
        if row["published"]:
            yield from _of_paper(published.pop(row["published"]), document)
    for row in published.values():
        yield from _of_paper(row, document)
    for row in document["references"]:
        cells = [_cell(row["scores"][score]) for score in columns]
        yield [row["title"], OURS, _data(row["data"]), *cells, _number(row["test_pairs"]), *[NONE] * 3]


def _of_paper(row: dict, document: dict) -> Iterator[list[str]]:
    for name, scores in row["data"].items():
        cells = [f"{scores[score]:.3f}" if score in scores else NONE for score in document["columns"]]
        yield [row["title"], THEIRS, _data(name), *cells, _number(row["test_pairs"]), *[NONE] * 3]


def _data(name: str) -> str:
    return DATA.get(name, name) or NONE


def _number(count: int | None) -> str:
    return NONE if count is None else f"{count:,}"


def _cell(cell: dict | None) -> str:
    if cell is None:
        return NONE
    spread = "" if cell["spread"] is None else f" ± {cell['spread']:.3f}"
    interval = "" if cell["low"] is None else f" [{cell['low']:.3f}, {cell['high']:.3f}]"
    return f"{cell['value']:.3f}{spread}{interval}"


def _notes(document: dict, code: Callable[[str], str]) -> Iterator[str]:
    if len(document["seeds"]) == 1:
        yield "In brackets: the 95 % interval over the people of the test split."
    else:
        yield (
            f"Mean over seeds {', '.join(map(str, document['seeds']))} ± their standard deviation; in brackets: from "
            "the lowest to the highest end of the seeds' 95 % intervals over the people of the test split."
        )
    for score in document["columns"]:
        if score in document["protocols"]:
            yield f"{code(score)}: {document['protocols'][score].rstrip('.')}."
    for why in dict.fromkeys(document["left_out"].values()):
        scores = ", ".join(code(score) for score, other in document["left_out"].items() if other == why)
        again = "once that is mended, remove evaluation.json of the runs and give the same command again"
        yield f"{NONE} under {scores}: left out, {why.rstrip('.')}; {again}."
    for gap in document["missing"]:
        title = next(row["title"] for row in document["rows"] if row["row"] == gap["row"])
        yield f"Missing: {title}, seed {gap['seed']}: {gap['why']}."
    yield (
        "published: table 2 of the MsCGAN paper, which quotes the three rows of others. It says that it measures as "
        f"PG2 did, so they stand under {code('ssim_A')}, {code('is')} and their masked kinds. How long it trained "
        "each it does not say. Models with published scores alone we do not train."
    )
    if not set(document["data"]) <= set(DATA):
        yield (
            "Our scores are of other images than the published ones: they say nothing about Market-1501 or "
            "DeepFashion, and no number of ours here is to be compared with a published one."
        )
    for family, stage in document["shared"].items():
        yield f"Rows of the family {family} stand on one stage {stage} a seed: no discriminator takes part in it."
    for variant, row in document["same_as"].items():
        yield f"{variant} (figure 1) is {row} by our reading, and trained once."
    for setting in [text for text in document["overrides"] if not text.startswith("data.root=")]:
        yield f"Set for all rows that have the key: {code(setting)}."


def _escaped(text: str) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", text).replace("–", "--").replace("±", "$\\pm$")
