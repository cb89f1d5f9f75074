"""The scorers that are networks inside an evaluation: which images each sees. Their own tests are test_metrics_*.py."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from mscgan import scoring, trained
from mscgan.data.shards import ShardSet
from mscgan.errors import UserError
from mscgan.evaluate import Chosen, evaluate
from mscgan.metrics import Unavailable
from mscgan.metrics.frechet import fid
from mscgan.metrics.inception import Inception, InceptionGFLA
from mscgan.metrics.inception_score import inception_score
from mscgan.metrics.lpips import Lpips
from mscgan.pose import body_mask
from mscgan.scored import RunImages
from mscgan.scoring import inapplicable
from tests.run_factory import write_run

SETS = ("is", "mask_is", "fid", "fid_gfla")
RNG = np.random.default_rng(0)
LAYER = RNG.normal(0, 1e-4, (64 * 32 * 3, 12)).astype(np.float32)


def of_pixels(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) @ LAYER


@pytest.fixture
def light(tmp_path, monkeypatch):
    """Networks of one layer in the place of those whose weights are not ours."""
    for kind in (Inception, InceptionGFLA, Lpips):
        monkeypatch.setattr(kind, "__init__", lambda self, device: setattr(self, "sha256", "00"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    both = lambda self, images: {"pool3": of_pixels(images), "logits": of_pixels(images)[:, ::-1]}  # noqa: E731
    monkeypatch.setattr(Inception, "features", both)
    monkeypatch.setattr(InceptionGFLA, "features", lambda self, images: 2 * of_pixels(images))
    apart = lambda self, made, targets: np.abs(made / 255 - targets / 255).max((1, 2, 3))  # noqa: E731
    monkeypatch.setattr(Lpips, "distances", apart)


def test_sets_are_of_all_images_and_masks_of_the_sources_pose(light, tmp_path):
    run = write_run(tmp_path, persons=4, views=3)
    document = evaluate(run, Chosen(scores=(*SETS, "lpips"), keep=True))
    assert document
    shards, train = (ShardSet(trained.read_config(run).data.root, split) for split in ("test", "train"))
    images = np.stack([np.array(Image.open(io.BytesIO(shards.read(i)))) for i in range(len(shards))])
    real = np.stack([np.array(Image.open(io.BytesIO(train.read(i)))) for i in range(len(train))])
    (generated,) = run.glob("generated-*")
    kept = [f"{shards.names[i]}_{shards.names[j]}.png" for i, j in shards.pairs]
    made = np.stack([np.array(Image.open(generated / "stage_II" / name)) for name in kept])
    sources, targets = shards.pairs.T
    pose = torch.from_numpy(shards.keypoints[sources])
    mask = body_mask(pose, 64, 32, "pg2", radius=4.0)[:, 0, :, :, None].numpy().astype(np.uint8)
    for method, those in (("stage_II", made), ("copy_source", images[sources]), ("real", images[targets])):
        found = {score: cell["value"] for score, cell in document["scores"][method].items() if score in SETS}
        assert found == pytest.approx(
            {
                "is": inception_score(of_pixels(those)),
                "mask_is": inception_score(of_pixels(those * mask)),
                "fid": fid(of_pixels(those), of_pixels(real)),
                "fid_gfla": fid(2 * of_pixels(those), 2 * of_pixels(real)),
            },
            rel=1e-5,
        )
    expected = np.abs(made / 255 - images[targets] / 255).max((1, 2, 3)).mean()
    assert document["scores"]["stage_II"]["lpips"]["value"] == pytest.approx(expected)
    assert set(document["scores"]["mean_image"]) == {"lpips"} and "lpips" not in document["scores"]["real"]
    assert document["real"] == "all 12 of the train split"
    cell = document["scores"]["stage_II"]["fid"]
    assert cell["low"] < cell["value"] < cell["high"] and len(document["left_out_groups"]["stage_II/fid"]) == 4


def test_the_real_images_are_looked_at_once(light, tmp_path, monkeypatch):
    run, chosen = write_run(tmp_path, persons=3, views=2), Chosen(scores=("fid",))
    first = evaluate(run, chosen)
    with monkeypatch.context() as patched:
        patched.setattr(RunImages, "real_images", lambda self, rows: pytest.fail("looked at again"))
        assert evaluate(run, chosen) == first
    (kept,) = (tmp_path / "cache/mscgan/features").iterdir()
    whole = kept.read_bytes()
    for damage in (whole[:100], b"", b"no archive"):
        kept.write_bytes(damage)
        assert evaluate(run, chosen) == first
    for others in ({"pool3": np.zeros((2, 12), np.float32)}, {"pool3": np.array([None])}, {}):
        with kept.open("wb") as file:
            np.savez(file, **others)
        assert evaluate(run, chosen) == first
    monkeypatch.setattr(Inception, "__init__", lambda self, device: setattr(self, "sha256", "11"))
    evaluate(run, chosen)
    assert len(list(kept.parent.iterdir())) == 2


def test_the_document_has_the_digests_of_the_networks_and_no_score_at_all_is_refused(light, tmp_path, monkeypatch):
    run = write_run(tmp_path, persons=3, views=2)
    document = evaluate(run, Chosen(scores=("fid", "lpips")))
    assert document and document["networks"] == {"Inception": "00", "Lpips": "00"}

    def unavailable(self, device):
        raise Unavailable("no file")

    monkeypatch.setattr(Inception, "__init__", unavailable)
    with pytest.raises(UserError, match="no score is left: no file"):
        evaluate(run, Chosen(scores=("fid",)))


def test_of_one_real_image_there_is_no_distance():
    assert inapplicable("fid", 12, 1, 64, 32, ()) == "it takes at least 2 images, and here are 1"
    assert not inapplicable("is", 12, 1, 64, 32, ()) and "31x31" in inapplicable("lpips", 12, 1, 64, 16, ())


def test_a_network_that_no_score_wants_is_not_made(light, tmp_path, monkeypatch):
    monkeypatch.setattr(Inception, "__init__", lambda self, device: pytest.fail("made"))
    evaluate(write_run(tmp_path, persons=2, views=2), Chosen(scores=("l1", "lpips")))


def test_other_weights_of_a_network_start_anew(light, tmp_path, monkeypatch):
    from mscgan import evaluation

    run, seen = write_run(tmp_path, persons=2, views=2), []
    whole = evaluation.Chunks
    monkeypatch.setattr(evaluation, "Chunks", lambda folder, ranks: seen.append(folder) or whole(folder, ranks))
    for digest in ("00", "11"):
        monkeypatch.setattr(Lpips, "__init__", lambda self, device, digest=digest: setattr(self, "sha256", digest))
        evaluate(run, Chosen(scores=("lpips",)))
    assert seen[0] != seen[1] and json.loads((run / "evaluation-lpips.json").read_text())["scores"]


def test_on_a_cpu_pixels_are_scored_by_one_thread_and_the_others_come_back(monkeypatch):
    def one_then_fails(made, targets, masks):
        assert torch.get_num_threads() == 1
        raise UserError("seen")

    monkeypatch.setitem(scoring.OF_PIXELS, "l1", one_then_fails)
    image, threads = np.zeros((1, 16, 16, 3), np.uint8), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(UserError, match="seen"):
            scoring.score_pixels(scoring.Batch(image, {}, {"made": image}), ["l1"], torch.device("cpu"))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
