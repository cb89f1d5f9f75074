"""Generate: what reaches the networks and what is written, on a small untrained run."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from mscgan import config as configuration
from mscgan.errors import UserError, run
from mscgan.generate import choose_pairs, generate, load_generators, main, open_shards, read_images, sample_grid
from mscgan.networks import Generators
from mscgan.pictures import to_uint8
from tests.shard_factory import write_shards

BASE = 8


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The folder of an untrained run of the demo's size; its shards lie beside it."""
    folder = tmp_path_factory.mktemp("generate") / "run"
    folder.mkdir()
    shards = write_shards(folder.parent / "shards", persons=3, views=2)
    config = configuration.load("demo", [f"data.root={shards}", f"model.base={BASE}", f"run={folder}"])
    configuration.save(config, folder / "config.yaml")
    torch.manual_seed(3)
    save_file(Generators(64, 32, BASE).state_dict(), folder / "generator.safetensors")
    return folder


def points() -> np.ndarray:
    """(1, 18, 2) keypoints in 64x32, the last joint missing."""
    rng = np.random.default_rng(5)
    keypoints = rng.integers(0, [32, 64], (1, 18, 2)).astype(np.float32)
    keypoints[0, 17] = -1
    return keypoints


def test_the_networks_get_the_image_and_gaussian_maps_of_the_target_pose(made):
    generators, config = load_generators(made)
    x = np.random.default_rng(6).integers(0, 256, (1, 64, 32, 3), dtype=np.uint8)
    rows, columns = np.mgrid[0:64, 0:32]
    maps = [
        np.exp(-((columns - px) ** 2 + (rows - py) ** 2) / (2 * config.data.sigma**2)) * (px >= 0)
        for px, py in points()[0]
    ]
    given = np.concatenate([x[0].transpose(2, 0, 1) / 127.5 - 1, np.stack(maps)])[None].astype(np.float32)
    expected = Generators(64, 32, BASE)
    expected.load_state_dict(load_file(made / "generator.safetensors"))
    with torch.no_grad():
        y1 = expected.G1(torch.from_numpy(given))
        y_hat = expected.G2(torch.from_numpy(given[:, :3]), y1)
    result = generate(generators, torch.from_numpy(x), torch.from_numpy(points()), config.data)
    for ours, theirs in zip(result, (y1, y_hat), strict=True):
        assert ours.dtype == torch.float32 and ours.shape == (1, 3, 64, 32)
        torch.testing.assert_close(ours.cpu(), theirs, atol=2e-5, rtol=0)


def test_the_generators_come_ready_for_use_and_leave_no_gradient(made):
    generators, _ = load_generators(made)
    assert not generators.training
    assert not any(parameter.requires_grad for parameter in generators.parameters())


def test_images_of_another_size_are_refused(made):
    generators, config = load_generators(made)
    with pytest.raises(UserError, match=r"\(32, 64, 3\); the model takes \(64, 32, 3\)"):
        generate(generators, torch.zeros(1, 32, 64, 3, dtype=torch.uint8), torch.from_numpy(points()), config.data)


def test_a_run_without_weights_or_with_others_is_refused(made, tmp_path):
    with pytest.raises(UserError, match="no config.yaml"):
        load_generators(tmp_path)
    (tmp_path / "config.yaml").write_bytes((made / "config.yaml").read_bytes())
    with pytest.raises(UserError, match="no generator.safetensors"):
        load_generators(tmp_path)
    weights = tmp_path / "generator.safetensors"
    weights.write_bytes((made / "generator.safetensors").read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be read"):
        load_generators(tmp_path)
    save_file(Generators(64, 32, 2 * BASE).state_dict(), weights)
    with pytest.raises(UserError, match="does not fit config.yaml") as caught:
        load_generators(tmp_path)
    assert "\n" not in str(caught.value)


def test_pairs_are_spread_over_the_whole_table(made):
    _, config = load_generators(made)
    shards = open_shards(config, "test")
    assert len(shards.pairs) == 6
    assert choose_pairs(shards, 6).tolist() == [0, 1, 2, 3, 4, 5]
    assert choose_pairs(shards, 2).tolist() == [0, 5]
    assert choose_pairs(shards, 1).tolist() == [0]
    for count in (0, 7):
        with pytest.raises(UserError, match=f"{count} pairs asked for"):
            choose_pairs(shards, count)


def test_images_are_read_as_pillow_reads_them(made):
    _, config = load_generators(made)
    shards = open_shards(config, "test")
    pictures = read_images(shards, np.array([4, 1]))
    for picture, i in zip(pictures, (4, 1), strict=True):
        assert (picture == np.array(Image.open(io.BytesIO(shards.read(i))))).all()


def test_shards_that_do_not_fit_are_refused_by_name(made, tmp_path):
    _, config = load_generators(made)
    other = write_shards(tmp_path / "square", persons=1, views=2, height=64, width=64)
    with pytest.raises(UserError, match=r"64x64 \(height x width\), the model takes 64x32"):
        open_shards(config, "test", str(other))
    alone = write_shards(tmp_path / "alone", persons=2, views=1)
    with pytest.raises(UserError, match="has no pairs"):
        open_shards(config, "test", str(alone))
    config.data.root = ""
    with pytest.raises(UserError, match="--data DIR"):
        open_shards(config, "test")
    broken = write_shards(tmp_path / "broken", persons=1, views=2, images={1: b"no jpeg"})
    with pytest.raises(UserError, match="test-00001.tar:test_0000_000001 is no whole JPEG"):
        read_images(open_shards(config, "test", str(broken)), np.array([0, 1]))


def test_the_grid_shows_each_pairs_own_images(made):
    generators, config = load_generators(made)
    shards = open_shards(config, "test")
    picture = np.array(sample_grid(generators, shards, 6, config.data))
    # Cells are enlarged four times, so the mean of a cell is that of its image.
    cells = picture[24:].reshape(6, 260, -1, 3)[:, :256, 4:].reshape(6, 256, 5, 132, 3)[:, :, :, :128]
    shown = cells.mean(axis=(1, 3))
    y1, y_hat = generate(
        generators,
        torch.from_numpy(read_images(shards, shards.pairs[:, 0])),
        torch.from_numpy(shards.keypoints[shards.pairs[:, 1]]),
        config.data,
    )
    columns = {
        0: read_images(shards, shards.pairs[:, 0]),
        2: to_uint8(y1),
        3: to_uint8(y_hat),
        4: read_images(shards, shards.pairs[:, 1]),
    }
    for column, images in columns.items():
        np.testing.assert_allclose(shown[:, column], images.mean(axis=(1, 2)), atol=1.0)
    assert (cells[:, :, 1] == 0).all(axis=-1).mean() > 0.5  # the pose, on black


def test_the_command_puts_a_persons_own_image_into_a_pose(made, tmp_path):
    pixels = np.random.default_rng(8).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "me.png")
    (tmp_path / "pose.json").write_text(json.dumps(points()[0].tolist()))
    words = ["--run", made, "--image", tmp_path / "me.png", "--keypoints", tmp_path / "pose.json"]
    done = subprocess.run(
        [sys.executable, "-m", "mscgan.generate", *map(str, words)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[1],
    )
    out = made / "me-in-new-pose.png"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{out}\n", "")
    generators, config = load_generators(made)
    _, y_hat = generate(generators, torch.from_numpy(pixels)[None], torch.from_numpy(points()), config.data)
    difference = np.array(Image.open(out)).astype(int) - to_uint8(y_hat)[0]
    assert abs(difference).max() <= 1  # another number of threads may round otherwise


def exit_code(monkeypatch, *words: object) -> int:
    """Of the command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["generate", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        run(main)
    return left.value.code or 0


def test_the_command_writes_a_grid_of_pairs(made, tmp_path, monkeypatch, capsys):
    out = tmp_path / "new" / "grid.png"
    assert exit_code(monkeypatch, "--run", made, "--pairs", 2, "--split", "train", "--out", out) == 0
    assert capsys.readouterr().out == f"{out}\n"
    with Image.open(out) as picture:
        assert picture.size == (4 + 5 * 132, 24 + 2 * 260)


def test_the_command_says_what_it_did_to_an_image_of_another_size(made, tmp_path, monkeypatch, capsys):
    Image.new("RGB", (64, 128)).save(tmp_path / "me.png")
    words = ["--keypoints", json.dumps(points()[0].tolist()), "--out", tmp_path / "out.png"]
    assert exit_code(monkeypatch, "--run", made, "--image", tmp_path / "me.png", *words) == 0
    assert "me.png is 64x128 (width x height): scaled to 32x64\n" in capsys.readouterr().err
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size == (32, 64)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--image", "me.png", "--keypoints", "[[1, 2], [3, 4]]"], "the pose has 2 keypoints; expected"),
        (["--image", "other.png", "--keypoints", "[[1, 2], [3, 4]]"], "no image 'other.png'"),
        (["--image", "me.png"], "give --image with --keypoints, or --pairs alone"),
        (["--pairs", "2", "--image", "me.png", "--keypoints", "[]"], "give --image with --keypoints, or --pairs alone"),
        (["--pairs", "2", "--out", "a.jpg"], "--out a.jpg: pictures are written as PNG"),
        (["--pairs", "2", "--out", "me.png/a.png"], "cannot write me.png/a.png"),
        (["--pairs", "99"], "99 pairs asked for"),
        (["--pairs", "2", "--split", "validation"], "has no split 'validation'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(made, tmp_path, monkeypatch, capsys, words, reason):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (32, 64)).save("me.png")
    assert exit_code(monkeypatch, "--run", made, *words) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and reason in said.err and said.err.count("\n") == 1
