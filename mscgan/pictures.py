"""Pictures for people: images back from tensors, drawn poses, grids with titles, and plots of metrics.jsonl.

`python -m mscgan.pictures RUN` draws RUN/losses.png from RUN/metrics.jsonl and prints its path.
"""

import colorsys
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from mscgan import curve, files
from mscgan.arguments import Parser
from mscgan.errors import UserError, run
from mscgan.losses import meaning
from mscgan.paths import a_path

# OpenPose's drawing, 0-based: neck-shoulders, arms, legs, then the head. (pose.LIMBS has more: they fill the body.)
SKELETON = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10),
    (1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
COLOURS = [tuple(round(255 * v) for v in colorsys.hsv_to_rgb(i / 18, 1.0, 1.0)) for i in range(18)]
CELL_HEIGHT = 256  # pixels: smaller images are enlarged by the largest whole factor that stays within it
PANELS = (  # title, and how the names of its loss terms begin
    ("G1, G2: L1 and masked L1", ("L1_", "bg_")),
    ("D: real and generated pairs", ("D",)),
    ("G2 against D", ("G_D",)),
    ("affinity fields and confidence maps", ("paf", "heat")),
)


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """(N, 3, H, W) in [-1, 1] of any float dtype, any device -> (N, H, W, 3) uint8: (v + 1) * 127.5, rounded half to
    even, then clipped to [0, 255]. It undoes normalise() exactly.

    Raises:
        UserError: a value is not finite.
    """
    values = (images.detach().float() + 1) * 127.5
    if not torch.isfinite(values).all():
        raise UserError(
            "the networks made NaN or infinite values, of which there is no picture; are the weights damaged?"
        )
    return values.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def draw_pose(
    keypoints: np.ndarray, height: int, width: int, scale: int = 1, on: np.ndarray | None = None
) -> np.ndarray:
    """The skeleton of (18, 2) keypoints (x, y), missing (-1, -1), in an image of height x width pixels:
    (height * scale, width * scale, 3) uint8, a colour a limb and a joint, on black or `on` a darkened image
    (height, width, 3) uint8."""
    picture = Image.new("RGB", (width * scale, height * scale))
    if on is not None:
        enlarged = Image.fromarray(on).resize(picture.size, Image.Resampling.BICUBIC)
        picture = Image.blend(picture, enlarged, 0.6)
    draw = ImageDraw.Draw(picture)
    # A pixel's centre lies half a pixel inside it: keeps the drawing in place over an enlarged image.
    points = [(((x + 0.5) * scale - 0.5), ((y + 0.5) * scale - 0.5)) for x, y in np.asarray(keypoints).tolist()]
    present = [x >= 0 and y >= 0 for x, y in np.asarray(keypoints).tolist()]
    thick = max(1, round(height * scale / 64))
    for (a, b), colour in zip(SKELETON, COLOURS, strict=False):
        if present[a] and present[b]:
            draw.line([points[a], points[b]], fill=tuple(int(0.7 * v) for v in colour), width=thick)
    for (x, y), there, colour in zip(points, present, COLOURS, strict=True):
        if there:
            radius = 0.75 * thick
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)
    return np.array(picture)


def draw_pose_on(image: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """The skeleton of (18, 2) keypoints on a darkened image, (H, W, 3) uint8 both."""
    drawn = draw_pose(keypoints, *image.shape[:2])
    return np.where(drawn.any(2, keepdims=True), drawn, image // 2)


def pose_column(keypoints: np.ndarray, height: int, width: int) -> np.ndarray:
    """(N, 18, 2) keypoints -> (N, h, w, 3) uint8 skeletons, drawn at the size that `grid` shows images at."""
    scale = enlargement(height)
    return np.stack([draw_pose(one, height, width, scale) for one in keypoints])


def grid(columns: dict[str, np.ndarray], title: str = "") -> Image.Image:
    """A row a pair, a titled column an entry; small images are enlarged (bicubic, as a viewer would).

    Args:
        columns: title -> (N, H, W, 3) uint8. N is the same for all; H and W are those of the images, except
            for columns from `pose_column`, which are drawn at the final size.
        title: of the whole, in a line of its own above the columns' titles.
    """
    height = min(images.shape[1] for images in columns.values())
    width = min(images.shape[2] for images in columns.values())
    rows = len(next(iter(columns.values())))
    scale, gap, line = enlargement(height), 4, 24
    head = 2 * line if title else line
    cell_height, cell_width = height * scale, width * scale
    picture = Image.new(
        "RGB", (gap + len(columns) * (cell_width + gap), head + rows * (cell_height + gap)), (255, 255, 255)
    )
    draw = ImageDraw.Draw(picture)
    draw.text((picture.width / 2, line / 2), title, (0, 0, 0), _font(title, picture.width), anchor="mm")
    for column, (name, images) in enumerate(columns.items()):
        left = gap + column * (cell_width + gap)
        draw.text((left + cell_width / 2, head - line / 2), name, (0, 0, 0), _font(name, cell_width), anchor="mm")
        for row, image in enumerate(images):
            cell = Image.fromarray(image)
            if cell.size != (cell_width, cell_height):
                cell = cell.resize((cell_width, cell_height), Image.Resampling.BICUBIC)
            picture.paste(cell, (left, head + row * (cell_height + gap)))
    return picture


def save_png(picture: Image.Image, path: Path) -> None:
    """Writes a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.whole(path) as temporary:
        picture.save(temporary, format="PNG")


def loss_plots(metrics: Path, out: Path) -> None:
    """Plots every loss term and pairs/s of a run's metrics.jsonl over the pairs seen, as a PNG.

    A dotted line marks each change of stage. Panels without a value are left out. A last line that is still being
    written is passed over, and so is what is not the run's (mscgan/curve.py).

    Raises:
        UserError: no such file, or nothing in it.
    """
    if not metrics.is_file():
        raise UserError(f"no {metrics}; training writes it, so give the folder of a run that has started")
    from matplotlib.figure import Figure  # half a second, which the ranks of a training need not spend

    lines = curve.read(metrics)
    if not lines:
        raise UserError(f"{metrics} has no line yet; training writes one every log.every pairs")
    panels = []
    for title, prefixes in PANELS:
        names = list(dict.fromkeys(name for line in lines for name in line if name.startswith(prefixes)))
        if names:
            panels.append((title, names))
    panels.append(("pairs per second", ["pairs_per_second"]))
    figure = Figure(figsize=(8, 2.6 * len(panels)), layout="constrained")
    changes = [a["pairs"] for a, b in zip(lines, lines[1:], strict=False) if a["stage"] != b["stage"]]
    rows = figure.subplots(len(panels), squeeze=False, sharex=True)[:, 0]
    for axes, (title, names) in zip(rows, panels, strict=True):
        for name in names:
            points = [(line["pairs"], line[name]) for line in lines if line.get(name) is not None]
            axes.plot(*zip(*points, strict=True) if points else ([], []), label=_label(name), linewidth=1.2)
        for pairs in changes:
            axes.axvline(pairs, color="grey", linestyle=":", linewidth=1)
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
        if len(names) > 1:
            axes.legend(fontsize=7, ncols=math.ceil(len(names) / 4))
    axes.set_xlabel("pairs seen")
    out.parent.mkdir(parents=True, exist_ok=True)
    with files.whole(out) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _label(name: str) -> str:
    """A term's name and what it is, for the legend."""
    return f"{name}: {said}" if (said := meaning(name)) else name


def enlargement(height: int) -> int:
    """The factor by which `grid` enlarges images of that height."""
    return max(1, CELL_HEIGHT // height)


def _font(title: str, width: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """The default font at 14 pixels, or as much smaller as the title needs to fit."""
    for size in range(14, 7, -1):
        font = ImageFont.load_default(size)
        if font.getlength(title) <= width:
            return font
    return font


def main() -> None:
    parser = Parser(prog="python -m mscgan.pictures", description="Plots the losses of a run.")
    parser.add_argument("run", type=a_path, help="the run's folder")
    folder = parser.parse_args().run
    loss_plots(folder / "metrics.jsonl", folder / "losses.png")
    print(folder / "losses.png")


if __name__ == "__main__":
    run(main)
