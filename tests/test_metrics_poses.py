"""PCKh inside an evaluation: whose poses are compared with whose, what is passed over, and what the document says."""

import csv
import hashlib
import io
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mscgan import estimators, trained, weights
from mscgan.compare import compare
from mscgan.data.shards import ShardSet
from mscgan.errors import UserError
from mscgan.estimators import Person
from mscgan.evaluate import Chosen, evaluate, file_name
from mscgan.evaluate_folder import evaluate_folder
from mscgan.evaluation import format_table
from mscgan.metrics.pckh import HEAD, over_joints, pck_torso, pckh
from mscgan.metrics.poses import Poses
from mscgan.scored import RunImages
from tests.movenet_factory import put_answer
from tests.run_factory import write_run
from tests.shard_factory import jpeg

SCORES = ("pckh", "pck_torso")


def pose_of(image: np.ndarray) -> np.ndarray:
    """(18, 2) another for each image, with some joints missing; of some images there is none."""
    rng = np.random.default_rng(zlib.crc32(image.tobytes()))
    keypoints = rng.uniform(0, [32, 64], (18, 2)).astype(np.float32)
    keypoints[rng.uniform(size=18) < 0.2] = -1
    return keypoints if rng.uniform() < 0.8 else np.full((18, 2), -1, np.float32)


@pytest.fixture
def seen(monkeypatch) -> list[np.ndarray]:
    """The images that an estimator saw, which answers with `pose_of` and a second person."""
    images: list[np.ndarray] = []

    def estimate(image):
        images.append(image)
        pose, scores = pose_of(image), np.ones(18, np.float32)
        other = Person(np.zeros((18, 2), np.float32), scores, 0.1)
        return [Person(pose, scores, 0.9), other] if (pose != -1).any() else []

    monkeypatch.setattr(estimators, "open_estimator", lambda name: estimate)
    monkeypatch.setattr(estimators, "digest", lambda name: f"of {name}")
    return images


def behead(monkeypatch, every: int) -> None:
    """Of each so-manieth pair the target shows its shoulders and hips, and none of its head."""
    whole = RunImages.batch

    def batch(self, rows):
        found = whole(self, rows)
        target = found.poses["target"].copy()
        those = rows % every == 0
        target[np.ix_(those, HEAD)] = -1
        target[np.ix_(those, (2, 5, 8, 11))] = [[10, 10], [20, 10], [10, 30], [20, 30]]
        return found._replace(poses=found.poses | {"target": target})

    monkeypatch.setattr(RunImages, "batch", batch)


def test_each_method_is_scored_by_the_poses_of_its_images(seen, tmp_path, monkeypatch):
    behead(monkeypatch, every=3)
    run = write_run(tmp_path, persons=4, views=3)
    document = evaluate(run, Chosen(scores=SCORES, keep=True))
    assert document
    shards = ShardSet(trained.read_config(run).data.root, "test")
    images = np.stack([np.array(Image.open(io.BytesIO(shards.read(i)))) for i in range(len(shards))])
    (generated,) = run.glob("generated-*")
    kept = [f"{shards.names[i]}_{shards.names[j]}.png" for i, j in shards.pairs]
    made = np.stack([np.array(Image.open(generated / "stage_II" / name)) for name in kept])
    sources, targets = shards.pairs.T
    truth = shards.keypoints[targets]
    truth[::3, HEAD] = -1
    truth[::3, (2, 5, 8, 11)] = [[10, 10], [20, 10], [10, 30], [20, 30]]
    for method, those in (("stage_II", made), ("copy_source", images[sources]), ("real", images[targets])):
        poses = np.stack([pose_of(image) for image in those])
        for score, of in (("pckh", pckh), ("pck_torso", pck_torso)):
            share, joints = of(poses, truth)
            cell = document["scores"][method][score]
            assert cell["value"] == pytest.approx(over_joints(share, joints), abs=1e-12)
            assert cell["pairs"] == (joints > 0).sum()
            with (run / f"{Path(generated).name.replace('generated', 'evaluation')}-pairs.csv").open() as file:
                rows = [row for row in csv.DictReader(file) if row["method"] == method]
            assert np.array([float(row[score]) for row in rows]) == pytest.approx(share, nan_ok=True, abs=1e-7)
            assert [int(row[f"{score}_joints"]) for row in rows] == joints.tolist()
    skipped = len(shards.pairs) - document["scores"]["stage_II"]["pckh"]["pairs"]
    assert skipped and f"(without {skipped} pairs)" in format_table(document)
    assert document["scores"]["stage_II"]["pckh"]["low"] < document["scores"]["stage_II"]["pckh"]["high"]
    assert document["estimator"] == "movenet" and document["networks"] == {"Poses": "of movenet"}
    assert set(document["scores"]["mean_image"]) == set(SCORES) <= set(document["differences"]["stage_II - stage_I"])
    digests = [zlib.crc32(image.tobytes()) for image in seen]
    assert len(digests) == len(set(digests))  # each image once, however many pairs have it


def test_of_several_people_the_first_counts_and_of_nobody_every_joint_is_missing(seen):
    images = np.random.default_rng(0).integers(0, 256, (40, 64, 32, 3), dtype=np.uint8)
    found = Poses("movenet").keypoints(images)
    assert found.dtype == np.float32 and (found == np.stack([pose_of(image) for image in images])).all()
    assert 0 < (found == -1).all((1, 2)).sum() < 40


def test_an_estimator_that_is_not_the_default_is_named_in_the_file_and_its_name(seen, tmp_path):
    run = write_run(tmp_path, persons=2, views=2)
    document = evaluate(run, Chosen(scores=("l1", "pckh"), estimator="some/paf.pth"))
    assert document and document["estimator"] == "some/paf.pth"
    assert json.loads((run / "evaluation-l1+pckh-by-paf.pth.json").read_text()) == document
    shards = ShardSet(trained.read_config(run).data.root, "test")
    assert file_name(shards, len(shards.pairs), str(shards.root)) == "evaluation.json"
    without = evaluate(run, Chosen(scores=("l1",), estimator="some/paf.pth"))
    assert without and "estimator" not in without and (run / "evaluation-l1.json").is_file()


def test_a_folder_is_scored_with_the_targets_annotations_alone(seen, tmp_path):
    for name in ("made", "true"):
        (tmp_path / name).mkdir()
        for number in range(4):
            content = jpeg(number + (10 if name == "made" else 0), 64, 32)
            (tmp_path / name / f"000{number}_a.jpg").write_bytes(content)
    rng = np.random.default_rng(1)
    poses = rng.integers(0, [32, 64], (4, 18, 2))
    rows = [f"000{n}_a.jpg: {pose[:, 1].tolist()}: {pose[:, 0].tolist()}" for n, pose in enumerate(poses)]
    (tmp_path / "keypoints.csv").write_text("\n".join(["name:keypoints_y:keypoints_x", *rows]) + "\n")
    made, true = tmp_path / "made", tmp_path / "true"
    document = evaluate_folder(
        made, true, annotations=tmp_path / "keypoints.csv", scores=SCORES, out=tmp_path / "a.json"
    )
    assert document
    images = [np.array(Image.open(file)) for file in sorted(made.glob("*.jpg"))]
    share, joints = pckh(np.stack([pose_of(image) for image in images]), poses)
    assert document["scores"]["generated"]["pckh"]["value"] == pytest.approx(over_joints(share, joints))
    document = evaluate_folder(made, true, scores=("l1", *SCORES), out=tmp_path / "b.json")
    assert document and document["left_out"] == dict.fromkeys(SCORES, "it needs keypoints of the target")


def test_a_folders_scores_by_another_estimator_do_not_replace_those_by_the_default(seen, tmp_path):
    for folder in ("made", "true"):
        (tmp_path / folder).mkdir()
        for name in ("0001_a.jpg", "0002_a.jpg"):
            (tmp_path / folder / name).write_bytes(jpeg(1, 64, 32))
    ys = list(range(10, 28))
    rows = "".join(f"000{number}_a.jpg: {ys}: {ys}\n" for number in (1, 2))
    (tmp_path / "keypoints.csv").write_text("name:keypoints_y:keypoints_x\n" + rows)
    for estimator in ("movenet", "paf"):
        evaluate_folder(
            tmp_path / "made", tmp_path / "true", annotations=tmp_path / "keypoints.csv", scores=("pckh",),
            estimator=estimator,
        )  # fmt: skip
    names = {path.name for path in (tmp_path / "made").glob("*.json")}
    assert names == {"evaluation-pckh.json", "evaluation-pckh-by-paf.json"}


def test_a_score_that_passes_over_all_pairs_is_left_out_with_the_reason(seen, tmp_path, monkeypatch):
    run = write_run(tmp_path, persons=2, views=2)
    behead(monkeypatch, every=1)
    document = evaluate(run, Chosen(scores=SCORES))
    assert document and set(document["scores"]["stage_II"]) == {"pck_torso"}
    assert document["left_out"] == {"pckh": "no target shows the joints that it is measured by"}
    with pytest.raises(UserError, match="no score is left: no target shows"):
        evaluate(run, Chosen(scores=("pckh",)))


def test_without_weights_both_are_left_out_and_said(tmp_path, monkeypatch):
    monkeypatch.setenv("MSCGAN_WEIGHTS", str(tmp_path / "none"))
    document = evaluate(write_run(tmp_path, persons=2, views=2), Chosen(scores=("l1", *SCORES)))
    assert document and set(document["left_out"]) == set(SCORES)
    assert all("python -m mscgan.weights fetch movenet" in why for why in document["left_out"].values())


def test_the_document_has_the_digest_of_the_file_of_weights(tmp_path, monkeypatch):
    spread = np.linspace(0.1, 0.9, 17)
    content = put_answer(monkeypatch, tmp_path, np.stack([spread, spread, np.full(17, 0.9)], 1))
    document = evaluate(write_run(tmp_path, persons=2, views=2), Chosen(scores=("pck_torso",)))
    assert document and document["networks"] == {"Poses": hashlib.sha256(content).hexdigest()}
    assert document["networks"]["Poses"] == weights.TABLE["movenet"].sha256
    assert (
        document["scores"]["stage_II"]["pck_torso"] == document["scores"]["real"]["pck_torso"]
    )  # it always answers so


def test_a_comparison_weighs_pairs_as_the_evaluations_do_and_wants_one_estimator(seen, tmp_path, monkeypatch):
    for name in "ab":
        (tmp_path / name).mkdir()
    runs = [write_run(tmp_path / name, persons=4, views=2) for name in "ab"]
    documents = [evaluate(run, Chosen(scores=("pckh",)), run / "evaluation.json") for run in runs]
    monkeypatch.setattr("mscgan.estimators.digest", lambda name: "another")
    other = evaluate(runs[1], Chosen(scores=("pckh", "l1")), runs[1] / "other.json")
    assert all(documents) and other
    found = compare(*runs)
    for name, document in zip(("first", "second"), documents, strict=True):
        assert found["scores"][name]["pckh"] == pytest.approx(document["scores"]["stage_II"]["pckh"], abs=1e-6)
    left_out = compare(runs[1] / "evaluation.json", runs[1] / "other.json")["left_out"]
    assert left_out["pckh"] == "the two were scored by networks with other weights"
