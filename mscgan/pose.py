"""A pose as pictures: joint order, mirror image, heatmaps for G1 and the body mask M_p of the losses (section 3.1).

Keypoints are (N, 18, 2) tensors of (x, y) in pixels, in OpenPose's COCO order, inside the image; a joint is missing
where a coordinate is -1 (the field's files write -1 in both). Everything is batched and runs on the keypoints' device.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

# "right" is the person's right. The public files hold right eye and ear before left, whatever programs for them say.
JOINTS = (
    "nose", "neck",
    "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist",
    "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle",
    "right eye", "left eye", "right ear", "left ear",
)  # fmt: skip
FLIP = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16)  # in the mirrored image joint FLIP[i] is joint i

# PG2's limbs (shared by pose-gan): OpenPose's without shoulder-ear, and the edges that fill head and trunk.
LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17), (1, 16), (1, 17), (8, 11), (11, 5), (8, 2), (16, 17),
)  # fmt: skip
HEATMAPS = ("gaussian", "disc", "disc_pg2")  # the kinds that `heatmaps` draws


@functools.cache
def on_device(table: tuple, device: torch.device) -> Tensor:
    """FLIP or LIMBS as an int32 tensor, copied to the device once: a copy in each step would wait for the device."""
    return torch.tensor(table, dtype=torch.int32, device=device)


def present(keypoints: Tensor) -> Tensor:
    """Which joints are there: (..., 18, 2) -> (..., 18) bool."""
    return (keypoints != -1).all(-1)


def flip(keypoints: Tensor, width: int) -> Tensor:
    """The keypoints of the image mirrored left to right: (N, 18, 2) -> (N, 18, 2), left and right joints swapped."""
    swapped = keypoints.index_select(1, on_device(FLIP, keypoints.device))
    x, y = swapped.unbind(-1)
    mirrored = torch.stack([width - 1 - x, y], -1)
    return torch.where(present(swapped)[..., None], mirrored, -1.0)


def heatmaps(
    keypoints: Tensor, height: int, width: int, kind: str = "gaussian", sigma: float = 6.0, radius: float = 4.0
) -> Tensor:
    """One picture a joint: (N, 18, 2) -> (N, 18, H, W) float32.

    kind:
        "gaussian": exp(-d^2 / 2 sigma^2), no cut-off, in [0, 1] (pose-gan and its successors; sigma 6 px).
        "disc": 1 up to `radius` from the coordinates, which are truncated to whole pixels, and 0 beyond.
        "disc_pg2": the disc * 2 - 1, so 1 and -1 (as PG2's trainer feeds it; radius 4 px).
    A missing joint's picture has no disc: all zeros, or in "disc_pg2" all -1.
    """
    there = present(keypoints)[..., None, None]
    if kind == "gaussian":
        dx, dy = _offsets(keypoints.float(), height, width)
        columns, rows = (torch.exp(d.square() / (-2 * sigma**2)) for d in (dx, dy))
        return columns * (rows * there)
    if kind in ("disc", "disc_pg2"):
        dx, dy = _offsets(keypoints.float().trunc(), height, width)
        discs = ((dx.square() + dy.square() <= radius**2) & there).float()
        return discs * 2 - 1 if kind == "disc_pg2" else discs
    raise ValueError(f"heatmaps of kind {kind!r}; choose {', '.join(HEATMAPS)}")


def body_mask(keypoints: Tensor, height: int, width: int, kind: str = "pg2", radius: float = 4.0) -> Tensor:
    """The filled body M_p: (N, 18, 2) -> (N, 1, H, W) float32 in {0, 1}, 1 on the person (section 3.1.3, figure 3).

    kind: "pg2" (Ma et al. 2017) or "pose-gan" (Siarohin et al. 2018). Both draw LIMBS `radius` pixels wide to each side
    and close the gaps with a 5x5 square; a limb with a missing end is left out.
    """
    if kind == "pg2":
        drawn = _pg2_limbs(keypoints, height, width, radius)
    elif kind == "pose-gan":
        drawn = _pose_gan_limbs(keypoints, height, width, radius)
    else:
        raise ValueError(f"a body mask of kind {kind!r}; choose pg2 or pose-gan")
    return -_dilate(-_dilate(drawn[:, None].float()))


def _dilate(image: Tensor) -> Tensor:
    """By a 5x5 square, first along rows, then along columns.

    skimage's dilation and erosion look at the pixels inside the image only, and so does the pool's padding.
    """
    along = F.max_pool2d(image, (1, 5), stride=1, padding=(0, 2))
    return F.max_pool2d(along, (5, 1), stride=1, padding=(2, 0))


def _pg2_limbs(keypoints: Tensor, height: int, width: int, radius: float) -> Tensor:
    """Discs in a row from end to end of each limb: (N, H, W) bool. A joint on no complete limb is not drawn.

    PG2 stamps n-1 discs between the ends, n = int(length / radius), at r0 + (r1 - r0)*i/n. That is Python 2: with whole
    peaks `/` rounds down, with float peaks it divides and int() then truncates. Public keypoints are whole, so we
    truncate coordinates first and round down. All centres are dots in one grid, and one convolution makes them discs.
    """
    points = keypoints.trunc().long()
    ends = on_device(LIMBS, keypoints.device)
    start, end = points[:, ends[:, 0], None], points[:, ends[:, 1], None]  # (N, 23, 1, 2)
    drawn = present(keypoints)[:, ends].all(-1)[..., None]  # (N, 23, 1)
    length = (end - start).double().square().sum(-1).sqrt()
    n = (length / radius).long().clamp(min=1)  # (N, 23, 1); 1: only the two ends
    most = int(math.hypot(height, width) / radius) + 1  # n's limit, not its maximum: that would wait for the device
    i = torch.arange(most + 1, device=keypoints.device)
    centres = start + torch.div((end - start) * i[:, None], n[..., None], rounding_mode="floor")  # (N, 23, most+1, 2)
    x, y = centres.unbind(-1)
    drawn = drawn & (i <= n) & (x >= 0) & (x < width) & (y >= 0) & (y < height)

    cells = torch.where(drawn, y * width + x, height * width)  # what is not drawn goes to a cell past the end
    dots = torch.zeros(len(points), height * width + 1, device=keypoints.device)
    dots.scatter_(1, cells.flatten(1), 1.0)
    dots = dots[:, :-1].view(-1, 1, height, width)
    reach = int(radius)
    offset = torch.arange(-reach, reach + 1, device=keypoints.device)
    disc = (offset[:, None].square() + offset.square() <= radius**2).float()
    with torch.autocast(keypoints.device.type, enabled=False):
        return F.conv2d(dots, disc[None, None], padding=reach)[:, 0] > 0.5


def _pose_gan_limbs(keypoints: Tensor, height: int, width: int, radius: float) -> Tensor:
    """A rectangle a limb, edges included, and a disc a joint, edge excluded: (N, H, W) bool.

    A pixel is in the rectangle when its distance from the limb's line is at most `radius` and its foot lies between the
    ends. Both are compared as squares in float64, which is exact for whole keypoints, so a pixel on the very edge is in
    on every device and in every mirror image. pose-gan itself rounds the rectangle's corners, and such a pixel falls
    either way there (two pixels in one of twelve Market-1501 masks). A limb of no length has no rectangle; pose-gan
    divides by zero.
    """
    points, there = keypoints.double(), present(keypoints)
    dx, dy = _offsets(points, height, width)  # (N, 18, 1, W), (N, 18, H, 1)
    discs = (dx.square() + dy.square() < radius**2) & there[..., None, None]
    drawn = discs.any(1)
    for start, end in LIMBS:
        along_x, along_y = (points[:, end] - points[:, start])[..., None, None].unbind(1)  # (N, 1, 1)
        squared_length = along_x.square() + along_y.square()
        across = dx[:, start] * along_y - dy[:, start] * along_x
        along = dx[:, start] * along_x + dy[:, start] * along_y
        inside = (across.square() <= radius**2 * squared_length) & (along >= 0) & (along <= squared_length)
        drawn |= inside & (squared_length > 0) & (there[:, start] & there[:, end])[:, None, None]
    return drawn


def _offsets(keypoints: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Each pixel's x and y distance from each joint: (N, 18, 1, W) and (N, 18, H, 1)."""
    x, y = keypoints[..., None, None].unbind(2)
    columns = torch.arange(width, device=keypoints.device, dtype=keypoints.dtype)
    rows = torch.arange(height, device=keypoints.device, dtype=keypoints.dtype)
    return columns - x, rows[:, None] - y
