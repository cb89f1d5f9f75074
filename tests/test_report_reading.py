"""What the page says of a run's folder: differences of configurations, and where its numbers come from."""

import hashlib
import json
import shutil

import pytest
import yaml

from mscgan.errors import UserError
from mscgan.report.reading import differing_keys, provenance, read
from tests.report_factory import write_curve, write_scores
from tests.run_factory import write_run


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path, 2, 2)


def change(run, **train):
    values = yaml.safe_load((run / "config.yaml").read_text())
    values["train"] |= train
    (run / "config.yaml").write_text(yaml.safe_dump(values | {"run": str(run)}))


def test_only_keys_that_differ_are_told_with_each_runs_value(run):
    other = run.parent / "other"
    shutil.copytree(run, other)
    assert differing_keys(read([run, other])) == {}
    change(other, seed=7, betas=[0.5, 0.999])
    assert differing_keys(read([run, other])) == {
        "train.betas": ["[0.5, 0.9]", "[0.5, 0.999]"],
        "train.seed": ["0", "7"],
    }


def test_a_folder_counts_once_and_folders_of_one_name_go_by_their_paths(run):
    shutil.copytree(run, run.parent / "elsewhere" / "run")
    runs = read([run, run.parent / "elsewhere" / ".." / "run", run.parent / "elsewhere" / "run"])
    assert [one.name for one in runs] == [str(run), str(run.parent / "elsewhere" / "run")]
    assert [one.name for one in read([run])] == ["run"]


def test_what_is_no_run_is_refused(run, tmp_path):
    with pytest.raises(UserError, match="no run folder '.*ruin'; did you mean .*/run"):
        read([tmp_path / "ruin"])
    with pytest.raises(UserError, match="has no config.yaml"):
        read([tmp_path / "shards"])


def test_provenance_has_the_digests_of_what_lies_there_and_the_scored_pairs(run):
    write_scores(run)
    write_curve(run)
    (one,) = read([run])
    told = provenance(one)
    assert (
        told["generator.safetensors, sha256"]
        == hashlib.sha256((run / "generator.safetensors").read_bytes()).hexdigest()
    )
    assert told["fingerprint of the shards scored on"] == one.evaluation.shards_fingerprint
    assert told["training"] == "not complete: 400 of 21,500 pairs in 40 steps of the optimisers, stage II; 0.4 minutes"
    assert told["commit"] == "not known: the run was started without launch/submit.py"
    assert one.stale == ""


def test_scores_of_other_weights_or_another_configuration_are_called_so(run):
    write_scores(run, generator_sha256="0" * 64)
    assert "other weights" in read([run])[0].stale
    write_scores(run)
    change(run, seed=3)
    assert "configuration has changed" in read([run])[0].stale


@pytest.mark.parametrize("above", [False, True], ids=["its own launch", "a sweep's"])
def test_commit_and_command_are_those_of_the_newest_launch_that_trained_it(run, above):
    for name, kind, of, commit in (
        ("launch-20260101-000000-aaaaaa", "train", run, "old"),
        ("launch-20260102-000000-bbbbbb", "train", run, "abc+changes"),
        ("launch-20260103-000000-cccccc", "evaluate", run, "later"),
        ("launch-20260104-000000-dddddd", "train", run.parent / "other", "another's"),
    ):
        folder = (run.parent if above else run) / name
        folder.mkdir()
        works = [{"run": "/elsewhere", "arguments": []}, {"run": str(of), "arguments": ["-m", "mscgan.train", "a b"]}]
        (folder / "launch.json").write_text(json.dumps({"kind": kind, "commit": commit, "works": works}))
    told = provenance(read([run])[0])
    assert told["commit"] == "abc+changes" and told["command"] == "python -m mscgan.train 'a b'"


def test_a_launch_that_cannot_be_read_is_said(run):
    (run / "launch-20260101-000000-aaaaaa").mkdir()
    (run / "launch-20260101-000000-aaaaaa/launch.json").write_text('{"kind": "train"}')
    assert "launch.json cannot be read (KeyError" in provenance(read([run])[0])["commit"]


def test_a_run_without_curve_says_why(run):
    assert "training writes it" in read([run])[0].no_curve
    (run / "metrics.jsonl").write_text("no line\n")
    assert "has no line yet" in read([run])[0].no_curve
    write_curve(run, 3)
    (one,) = read([run])
    assert not one.no_curve and len(one.curve) == 3
