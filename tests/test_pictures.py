"""Pictures: exact pixels where they are defined, and marks where drawings must have them."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from mscgan.errors import UserError
from mscgan.pictures import draw_pose, grid, loss_plots, main, pose_column, save_png, to_uint8


def test_to_uint8_undoes_normalisation_for_every_value():
    values = torch.arange(256, dtype=torch.uint8)
    images = (values.float() / 127.5 - 1).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert (to_uint8(images)[0, :, :, 1] == values.numpy().reshape(16, 16)).all()


def test_to_uint8_clips_and_rounds_half_to_even_and_puts_channels_last():
    images = torch.zeros(1, 3, 2, 2)
    images[0, 0] = torch.tensor([[-1.5, 1.5], [0.5 / 127.5 - 1, 0.0]])
    images[0, 2] = 1.0
    result = to_uint8(images.to(torch.float64))
    assert result.shape == (1, 2, 2, 3) and result.dtype == np.uint8
    assert result[0, :, :, 0].tolist() == [[0, 255], [0, 128]]
    assert (result[..., 2] == 255).all()


def test_to_uint8_refuses_what_is_not_finite():
    with pytest.raises(ValueError, match="NaN"):
        to_uint8(torch.full((1, 3, 2, 2), float("nan")))


def pose() -> np.ndarray:
    """A standing person in 64x32, the left wrist missing."""
    xs = [15, 15, 10, 8, 7, 20, 22, -1, 12, 12, 12, 18, 18, 18, 14, 16, 13, 17]
    ys = [8, 14, 14, 22, 30, 14, 22, -1, 32, 44, 56, 32, 44, 56, 7, 7, 8, 8]
    return np.stack([xs, ys], axis=1).astype(np.float32)


@pytest.mark.parametrize("scale", [1, 4])
def test_each_joint_that_is_there_is_drawn_in_its_place_and_colour(scale):
    picture = draw_pose(pose(), 64, 32, scale)
    assert picture.shape == (64 * scale, 32 * scale, 3) and picture.dtype == np.uint8
    body = range(14)  # the head's joints lie so close that they cover each other
    colours = set()
    for joint in body:
        x, y = pose()[joint].astype(int)
        place = picture[y * scale + scale // 2, x * scale + scale // 2]
        if joint != 7:
            assert place.any(), joint
            colours.add(tuple(place.tolist()))
    assert len(colours) == 13


def test_a_missing_joint_leaves_no_trace():
    both = draw_pose(pose(), 64, 32)
    assert not both[30, 23:].any()  # where the left forearm would hang
    assert not draw_pose(np.full((18, 2), -1.0), 64, 32).any()


def test_grid_has_a_titled_column_an_entry_and_shows_the_images():
    red = np.zeros((2, 64, 32, 3), np.uint8)
    red[0, ..., 0], red[1, ..., 0] = 200, 100
    blue = np.roll(red, 2, axis=3)
    poses = pose_column(np.stack([pose(), np.full((18, 2), -1.0)]), 64, 32)
    picture = np.array(grid({"source": red, "target pose": poses, "target": blue}))
    cell_height, cell_width = poses.shape[1:3]
    assert (cell_height, cell_width) == (256, 128)
    assert picture.shape == (24 + 2 * (256 + 4), 4 + 3 * (128 + 4), 3)
    for column, images in ((0, red), (2, blue)):
        for row in (0, 1):
            top, left = 24 + row * 260, 4 + column * 132
            assert (picture[top : top + 256, left : left + 128] == images[row, 0, 0]).all()
            assert (picture[top - 4 : top, left : left + 128] == 255).all() or row == 0
        title = picture[:24, left : left + 128]
        assert (title < 100).any() and (title == 255).any()
    assert (picture[24 : 24 + 256, 136 : 136 + 128] == poses[0]).all()
    assert (picture[24 + 260 : 24 + 260 + 256, 136 : 136 + 128] == poses[1]).all()


def test_a_grid_with_a_title_is_the_same_grid_a_line_lower():
    columns = {"source": np.full((1, 64, 32, 3), 200, np.uint8)}
    plain, titled = np.array(grid(columns)), np.array(grid(columns, "people of the train split"))
    assert (titled[24:] == plain).all() and (titled[:24] < 128).any()


def test_grid_leaves_large_images_at_their_size():
    images = np.zeros((1, 256, 256, 3), np.uint8)
    assert grid({"source": images}).size == (4 + 260, 24 + 260)


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "new" / "a.png"
    save_png(Image.new("RGB", (4, 4), (1, 2, 3)), path)
    with pytest.raises(OSError):
        save_png(Image.new("F", (4, 4)), path)  # PNG has no float pixels
    with Image.open(path) as picture:
        assert picture.getpixel((0, 0)) == (1, 2, 3)


def metrics(path, lines):
    path.write_text("".join(json.dumps({"seconds": 0.0} | line) + "\n" for line in lines))
    return path


def test_loss_plots_draws_a_panel_a_kind_of_term(tmp_path):
    stage_I = [{"pairs": i, "stage": "I", "L1_1": 1 / i, "bg_1": 0.5, "pairs_per_second": 9.0} for i in (1, 2, 3)]
    stage_II = [
        {"pairs": i, "stage": "II", "L1_2": 0.1, "D1_real": 0.6, "G_D1": None, "pairs_per_second": 5.0} for i in (4, 5)
    ]
    loss_plots(metrics(tmp_path / "one.jsonl", stage_I), tmp_path / "one.png")
    loss_plots(metrics(tmp_path / "two.jsonl", stage_I + stage_II), tmp_path / "two.png")
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "two.png") as two:
        assert one.format == "PNG" and one.width == two.width
        assert two.height == 2 * one.height  # L1 and speed; then D and G against D as well
        assert len(np.unique(np.array(two.convert("RGB")).reshape(-1, 3), axis=0)) > 10


def test_plots_of_a_run_that_wrote_nothing_are_a_mistake_of_the_user(tmp_path):
    with pytest.raises(UserError, match="no .*metrics.jsonl"):
        loss_plots(tmp_path / "metrics.jsonl", tmp_path / "losses.png")
    (tmp_path / "metrics.jsonl").write_text('{"pairs": 1, "sta')
    with pytest.raises(UserError, match="no line yet"):
        loss_plots(tmp_path / "metrics.jsonl", tmp_path / "losses.png")


def test_the_command_plots_a_run_and_prints_the_path(tmp_path, monkeypatch, capsys):
    metrics(tmp_path / "metrics.jsonl", [{"pairs": 1, "stage": "I", "L1_1": 1.0, "pairs_per_second": 9.0}])
    monkeypatch.setattr(sys, "argv", ["pictures", str(tmp_path)])
    main()
    assert capsys.readouterr().out == f"{tmp_path / 'losses.png'}\n"
    assert (tmp_path / "losses.png").is_file()
