"""The loader against a plain Pillow reading in plain Python, over ranks, stops and broken images."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mscgan.data.loader import Loader
from mscgan.data.order import permutation, uniforms
from mscgan.data.shards import ShardSet
from mscgan.errors import UserError
from tests.shard_factory import jpeg, write_shards

PHOTOGRAPHS = Path(__file__).parents[1].parent / "shared/data/market1501/bounding_box_train"
SEED = 3


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def stream(shards: ShardSet, length: int, bad: set[int] = frozenset()) -> list[tuple[int, float]]:
    """(row, uniform) at each position, by the rule: one with a bad image shows the next one with none."""
    pairs, epochs = len(shards.pairs), length // len(shards.pairs) + 3
    rows = [int(row) for epoch in range(epochs) for row in permutation(SEED, epoch, pairs)]
    draws = [float(draw) for epoch in range(epochs) for draw in uniforms(SEED, epoch, pairs)]
    good = [not bad & set(shards.pairs[row].tolist()) for row in rows]
    shown = [next(q for q in range(p, len(rows)) if good[q]) for p in range(length)]
    return [(rows[q], draws[q]) for q in shown]


def loader(shards, batch=4, rank=0, world=1, position=0, **options):
    return Loader(shards, batch, rank, world, SEED, flip=0.5, device="cpu", position=position, **options)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return ShardSet(write_shards(tmp_path_factory.mktemp("data") / "shards"), "train")  # 24 pairs


def test_batches_are_those_of_a_plain_pillow_reading(shards):
    batches = loader(shards, batch=5)
    expected = stream(shards, 50)
    for start in range(0, 50, 5):
        batch = next(batches)
        rows = [row for row, _ in expected[start : start + 5]]
        assert batch.pair.tolist() == rows and batch.pair.dtype == torch.int64
        assert batch.flip.tolist() == [draw < 0.5 for _, draw in expected[start : start + 5]]
        assert batch.x.shape == (5, 64, 32, 3) and batch.x.dtype == torch.uint8
        for n, (i, j) in enumerate(shards.pairs[rows].tolist()):
            # Both sides use libjpeg-turbo with one IDCT and one upsampling: equal here; 1 is left for other builds.
            assert np.abs(batch.x[n].numpy() - pillow(shards.read(i))).max() <= 1
            assert np.abs(batch.y[n].numpy() - pillow(shards.read(j))).max() <= 1
            assert np.array_equal(batch.x_keypoints[n].numpy(), shards.keypoints[i])
            assert np.array_equal(batch.y_keypoints[n].numpy(), shards.keypoints[j])
    assert batches.position == 50 and batches.corrupt == 0


@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason=f"no photographs at {PHOTOGRAPHS}")
def test_photographs_decode_as_with_pillow(tmp_path):
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))[:48]
    images = {i: path.read_bytes() for i, path in enumerate(files)}
    shards = ShardSet(write_shards(tmp_path, 12, 4, height=128, width=64, images=images), "train")
    batch = next(loader(shards, batch=len(shards.pairs)))
    for n, (i, j) in enumerate(shards.pairs[batch.pair].tolist()):
        assert np.abs(batch.x[n].numpy() - pillow(images[i])).max() <= 1
        assert np.abs(batch.y[n].numpy() - pillow(images[j])).max() <= 1


@pytest.mark.parametrize("world", [2, 3, 4])
def test_the_ranks_of_any_world_share_the_same_stream(shards, world):
    batch = 12 // world
    ranks = [loader(shards, batch, rank, world) for rank in range(world)]
    pairs, flips = [], []
    for _ in range(4):
        for batches in ranks:
            part = next(batches)
            pairs += part.pair.tolist()
            flips += part.flip.tolist()
    assert list(zip(pairs, flips)) == [(row, draw < 0.5) for row, draw in stream(shards, 48)]
    assert sorted(pairs[:24]) == sorted(pairs[24:]) == list(range(24))
    assert {batches.position for batches in ranks} == {48}


def test_a_run_stopped_on_one_rank_goes_on_on_two(shards):
    first = loader(shards, batch=6)
    seen = [next(first).pair.tolist() for _ in range(3)]
    ranks = [loader(shards, 3, rank, 2, position=first.position) for rank in range(2)]
    seen += [next(batches).pair.tolist() for _ in range(3) for batches in ranks]
    assert sum(seen, []) == [row for row, _ in stream(shards, 36)]


def test_a_batch_stays_as_it_is_while_the_loader_goes_on(shards):
    batches = loader(shards)
    held = next(batches)
    copy = held.x.clone()
    for _ in range(12):
        next(batches)
    assert torch.equal(held.x, copy)


def test_no_and_every_pair_can_be_flipped(shards):
    for probability in (0.0, 1.0):
        batch = next(Loader(shards, 24, 0, 1, SEED, probability, "cpu"))
        assert batch.flip.tolist() == [bool(probability)] * 24


WHOLE = jpeg(4, 64, 32)
BROKEN = {
    "empty": b"",
    "no JPEG": b"not an image at all" * 9,
    "header cut": WHOLE[:300],
    "data cut": WHOLE[: len(WHOLE) * 3 // 4],
    "no tables": WHOLE.replace(b"\xff\xdb", b"\xff\xfe"),  # of a whole structure: DALI's decoder refuses it
    "other size": jpeg(4, 32, 32),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_pairs_of_a_broken_image_are_replaced_by_the_next_and_no_other_moves(tmp_path, capfd, kind):
    shards = ShardSet(write_shards(tmp_path, images={4: BROKEN[kind]}), "train")
    batches = loader(shards, batch=4)
    pairs, flips = zip(*[(b.pair.tolist(), b.flip.tolist()) for b in (next(batches) for _ in range(12))])
    expected = stream(shards, 48, bad={4})
    assert sum(pairs, []) == [row for row, _ in expected]
    assert sum(flips, []) == [draw < 0.5 for _, draw in expected]
    assert batches.position == 48 and batches.corrupt == 2 * 4  # 4 of the 24 pairs hold image 4
    lines = re.findall(r"cannot decode (\S+):", capfd.readouterr().err)
    assert lines == ["train-00000.tar:train_0001_000004"]


def test_what_replaces_a_pair_is_the_same_for_any_world_and_any_resume(tmp_path):
    broken = {1: BROKEN["no tables"], 4: BROKEN["no tables"], 8: b""}
    shards = ShardSet(write_shards(tmp_path, images=broken), "train")
    expected = [row for row, _ in stream(shards, 48, bad={1, 4, 8})]
    ranks = [loader(shards, 2, rank, 3) for rank in range(3)]
    assert [row for _ in range(8) for batches in ranks for row in next(batches).pair.tolist()] == expected
    for position in (5, 17):
        assert next(loader(shards, 12, position=position)).pair.tolist() == expected[position : position + 12]


def test_too_many_broken_images_stop_with_their_names(tmp_path):
    shards = ShardSet(write_shards(tmp_path, images={1: BROKEN["no tables"], 7: b""}), "train")
    with pytest.raises(UserError, match="max_corrupt=1") as error:
        batches = loader(shards, max_corrupt=1)
        for _ in range(6):
            next(batches)
    for part in ("train-00000.tar:train_0000_000001", "train-00001.tar:train_0002_000007", "shards/verify.py"):
        assert part in str(error.value)


def test_a_folder_of_broken_images_ends_instead_of_searching_for_ever(tmp_path):
    shards = ShardSet(write_shards(tmp_path, 2, 2, images=dict.fromkeys(range(4), b"")), "train")
    with pytest.raises(UserError, match="4 images cannot be decoded .no pair without one is left"):
        next(loader(shards, batch=1))


def test_a_tar_that_goes_bad_under_the_loader_is_reported(tmp_path):
    shards = ShardSet(write_shards(tmp_path), "train")
    batches = loader(shards)
    next(batches)
    for tar in tmp_path.glob("train-*.tar"):
        with open(tar, "r+b") as file:
            file.truncate(100)
    with pytest.raises(UserError, match="where the index says"):
        for _ in range(20):
            next(batches)


def test_the_gpu_decoder_without_a_gpu_and_a_split_without_pairs_are_refused(shards, tmp_path):
    with pytest.raises(UserError, match="data.decode=cpu"):
        loader(shards, decode="mixed")
    with pytest.raises(UserError, match="no pairs"):
        loader(ShardSet(write_shards(tmp_path, views=1), "train"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize(("decode", "tolerance"), [("cpu", 1), ("mixed", 8)])  # nvJPEG has an IDCT of its own
def test_batches_on_the_gpu_are_those_on_the_cpu(shards, decode, tolerance):
    here, there = loader(shards), Loader(shards, 4, 0, 1, SEED, 0.5, "cuda", decode=decode)
    for _ in range(12):
        a, b = next(here), next(there)
        assert b.x.is_cuda and (a.x.int() - b.x.cpu().int()).abs().max() <= tolerance
        assert torch.equal(a.y_keypoints, b.y_keypoints.cpu()) and torch.equal(a.flip, b.flip.cpu())
        assert torch.equal(a.pair, b.pair)
