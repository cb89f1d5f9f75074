"""Shards read by plain Pillow, and the pairs that are chosen of them."""

import io

import numpy as np
import pytest
from PIL import Image

from mscgan.data.read import choose_pairs, open_shards, read_images
from mscgan.errors import UserError
from mscgan.keys import Data
from tests.shard_factory import write_shards


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Data:
    shards = write_shards(tmp_path_factory.mktemp("read") / "shards", persons=3, views=2)
    return Data(root=str(shards), height=64, width=32)


def test_pairs_are_spread_over_the_whole_table(data):
    shards = open_shards(data, "test")
    assert len(shards.pairs) == 6
    assert choose_pairs(shards, 6).tolist() == [0, 1, 2, 3, 4, 5]
    assert choose_pairs(shards, 2).tolist() == [0, 5]
    assert choose_pairs(shards, 1).tolist() == [0]
    for count in (0, 7):
        with pytest.raises(UserError, match=f"{count} pairs asked for"):
            choose_pairs(shards, count)


def test_images_are_read_as_pillow_reads_them(data):
    shards = open_shards(data, "test")
    pictures = read_images(shards, np.array([4, 1]))
    for picture, i in zip(pictures, (4, 1), strict=True):
        assert (picture == np.array(Image.open(io.BytesIO(shards.read(i))))).all()


def test_shards_that_do_not_fit_are_refused_by_name(data, tmp_path):
    other = write_shards(tmp_path / "square", persons=1, views=2, height=64, width=64)
    with pytest.raises(UserError, match=r"64x64 \(height x width\), the model takes 64x32"):
        open_shards(data, "test", str(other))
    alone = write_shards(tmp_path / "alone", persons=2, views=1)
    with pytest.raises(UserError, match="has no pairs"):
        open_shards(data, "test", str(alone))
    with pytest.raises(UserError, match="--data DIR"):
        open_shards(Data(height=64, width=32), "test")
    with pytest.raises(UserError, match="not at .*/gone, its data.root; .* with --data DIR"):
        open_shards(Data(root=str(tmp_path / "gone"), height=64, width=32), "test")
    broken = write_shards(tmp_path / "broken", persons=1, views=2, images={1: b"no jpeg"})
    with pytest.raises(UserError, match="test-00001.tar:test_0000_000001 cannot be decoded: not a JPEG"):
        read_images(open_shards(data, "test", str(broken)), np.array([0, 1]))
