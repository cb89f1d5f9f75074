"""The tables of scores: what stands together, what is called the best, and which evaluation.json is refused."""

import json

import pytest

from mscgan.errors import UserError
from mscgan.report.scores import difference_tables, read_evaluation, tables
from tests.report_factory import score

WHOLE = {
    "schema": 2, "version": "0.1.0", "split": "test", "dataset": "toy", "pairs": 12, "pairs_in_split": 12,
    "pairs_chosen": "all", "people": 4, "shards": "/shards", "shards_fingerprint": "ab", "config_sha256": "cd",
    "generator_sha256": "ef", "protocols": {}, "left_out": {}, "audit": {},
    "scores": {
        "copy_source": {"ssim_A": score(0.9), "l1": score(0.01), "sharpness": score(1.0)},
        "real": {"ssim_A": score(1.0), "l1": score(0.0), "sharpness": score(1.0)},
        "stage_I": {"ssim_A": score(0.6, 0.5, 0.7), "l1": score(0.2), "sharpness": score(0.7)},
        "stage_II": {"ssim_A": score(0.5), "l1": score(0.1), "sharpness": score(1.2), "new_score": score(3.0)},
    },
    "differences": {
        "stage_II - stage_I": {
            "ssim_A": score(-0.1, -0.2, -0.05), "l1": score(-0.1, -0.2, -0.01), "sharpness": score(0.5, 0.4, 0.6),
            "fid": score(1.0, -0.5, 2.5),
        }
    },
}  # fmt: skip


def evaluation(folder, **changes):
    folder.mkdir(exist_ok=True)
    (folder / "evaluation.json").write_text(json.dumps(WHOLE | changes))
    return read_evaluation(folder)


def cells(table, run, row):
    found = dict(table.runs[run])[row]
    return {column.title: cell for column, cell in zip(table.columns, found, strict=True)}


def test_values_stand_with_their_intervals_in_columns_with_arrows(tmp_path):
    (table,) = tables([("a", evaluation(tmp_path))])
    assert [(column.title, column.arrow) for column in table.columns] == [
        ("SSIM A", "↑"), ("L1", "↓"), ("sharpness", "→ 1"), ("new_score", ""),
    ]  # fmt: skip
    assert [method for method, _ in table.runs["a"]] == ["copy source", "real", "stage I", "stage II"]
    first = cells(table, "a", "stage I")
    assert (first["SSIM A"].value, first["SSIM A"].interval) == ("0.600", "0.500 to 0.700")
    assert (first["L1"].value, first["L1"].interval) == ("0.200", "")
    assert first["new_score"].value == "–"
    assert table.caption == "toy, split test: 12 pairs, 4 people"


def test_the_best_is_the_highest_the_lowest_or_the_nearest_to_1_of_what_runs_make(tmp_path):
    a = evaluation(tmp_path / "a")
    b = evaluation(tmp_path / "b", scores={"stage_II": {"ssim_A": score(0.6), "l1": score(0.05), "fid": score(9.0)}})
    (table,) = tables([("a", a), ("b", b)])
    best = [
        (run, method, column.title)
        for run, rows in table.runs.items()
        for method, row in rows
        for column, cell in zip(table.columns, row, strict=True)
        if cell.mark == "best"
    ]
    assert best == [
        ("a", "stage I", "SSIM A"), ("a", "stage II", "sharpness"),
        ("b", "stage II", "SSIM A"), ("b", "stage II", "L1"), ("b", "stage II", "FID"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "other", [{"shards_fingerprint": "xy"}, {"pairs": 6, "pairs_chosen": "spread evenly"}, {"split": "validation"}]
)
def test_scores_of_other_pairs_stand_in_a_table_of_their_own(tmp_path, other):
    runs = [("a", evaluation(tmp_path / "a")), ("b", evaluation(tmp_path / "b", **other))]
    assert [list(table.runs) for table in tables(runs)] == [["a"], ["b"]]
    assert [list(table.runs) for table in difference_tables(runs)] == [["a"], ["b"]]


def test_a_difference_is_better_or_worse_where_its_interval_leaves_0_out(tmp_path):
    (table,) = difference_tables([("a", evaluation(tmp_path))])
    row = cells(table, "a", "stage II − stage I")
    assert {title: cell.mark for title, cell in row.items()} == {
        "SSIM A": "worse", "L1": "better", "sharpness": "differs", "FID": "",
    }  # fmt: skip
    assert (row["SSIM A"].value, row["SSIM A"].interval) == ("−0.100", "−0.200 to −0.050")
    assert (row["FID"].value, row["FID"].interval) == ("+1.00", "−0.50 to +2.50")


def test_an_evaluation_of_another_schema_is_refused_with_what_to_run(tmp_path):
    with pytest.raises(UserError, match=r"schema 1, and this version reads 2; run again: python -m mscgan\.evaluate"):
        (tmp_path / "evaluation.json").write_text('{"split": "test", "scores": {}}')
        read_evaluation(tmp_path)
    with pytest.raises(UserError, match="schema 3"):
        evaluation(tmp_path, schema=3)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"schema": 2}', "[" * 100_000]
    + [
        json.dumps(WHOLE | wrong)
        for wrong in (
            {"scores": {}},
            {"scores": {"real": {"ssim_A": 1}}},
            {"scores": {"real": {"ssim_A": score(float("nan"))}}},
            {"scores": {"real": {"ssim_A": score(None)}}},
            {"scores": []},
            {"differences": None},
            {"pairs": "many"},
        )
    ]
    + [json.dumps(WHOLE).replace("0.9", "1e999")],
)
def test_what_is_no_evaluation_is_refused_in_a_line(tmp_path, text):
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(UserError, match="evaluation.json is not what evaluate writes .*; run again: python"):
        read_evaluation(tmp_path)


def test_a_run_that_was_not_scored_has_none(tmp_path):
    assert read_evaluation(tmp_path) is None
