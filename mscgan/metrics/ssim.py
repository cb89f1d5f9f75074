"""SSIM and mask-SSIM by the protocols of the field. Scores of different protocols must never be compared.

A: PG2 (score.py): 7x7 uniform window, sample covariance, range 255. The tables of PG2 and MsCGAN.
B: Siarohin et al. (pose-gan test.py; also PATN, ADGAN): 11x11 Gaussian window of sigma 1.5, covariance without Bessel's
   correction, and for range the largest minus the smallest value of the generated image. It is also GFLA's "ssim_256".
B_padded: PATN and ADGAN on DeepFashion (tool/getMetrics_fashion.py): the inner 176 columns with 40 white ones on each
   side, then B. The white counts as perfect, and lifts the range to 255 minus the smallest value.
gfla: GFLA, DPTN, CFLD (GFLA script/metrics.py, Reconstruction_Metrics): 51x51 uniform window, sample covariance, range
   1 on floats in [0, 1].
All take 8-bit RGB, score each channel over the whole frame and average. mask-SSIM paints all outside the mask black in
both images before, so the background counts as perfect; which mask, masks.py says.

scikit-image's structural_similarity is what public code calls, and the tests hold every protocol to it. The arithmetic
is here for speed alone: scikit-image takes 2.5 times as much of a CPU, a pair at a time, and no GPU. Sums over uniform
windows are of whole numbers, and exact.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mscgan.errors import UserError

WINDOW = {"A": 7, "B": 11, "B_padded": 11, "gfla": 51}  # pixels
UNIFORM = ("A", "gfla")  # the protocols with a uniform window; the others' is Gaussian
SIGMA = 1.5  # pixels
BLOCK = 2**15  # pixels of a channel that a thread of a CPU takes at once: they stay in its cache, for half the time
DESCRIPTIONS = {
    "A": "PG2: skimage structural_similarity, uniform 7x7, sample covariance, RGB uint8, range 255",
    "B": "Siarohin: skimage structural_similarity, Gaussian sigma 1.5 (11x11), no sample covariance, RGB uint8, "
    "range of the generated image (255 where it is constant)",
    "B_padded": "PATN on DeepFashion: columns 40 to 215 of 256 (or an image of 176), 40 white columns on each side, "
    "then as B",
    "gfla": "GFLA: skimage structural_similarity, uniform 51x51, sample covariance, RGB in [0, 1], range 1",
}
MASKED = ("A", "B")  # the protocols that public code also computes within a mask
INNER, BAND = 176, 40  # pixels: DeepFashion's 256 columns are 40 of background, 176, 40


def ssim(generated: Tensor, target: Tensor, protocol: str) -> Tensor:
    """The structural similarity of N pairs under a protocol of WINDOW: (N,) float64, exactly 1 where both are the same.

    Both are (N, H, W, 3) uint8 on one device. A score is the same in any batch and on any number of threads.

    Protocols B and B_padded have no value for a constant generated image: its range is 0 and public code divides 0 by
    0. We take the range of 8-bit images, 255, for it, so that every pair counts.

    Raises:
        UserError: other dtypes or shapes, images smaller than the protocol's window, a width that B_padded is not
            defined for, an unknown protocol.
    """
    if protocol not in WINDOW:
        raise UserError(f"no SSIM protocol {protocol!r}; choose {', '.join(WINDOW)}")
    check_images(generated, target)
    height, width = generated.shape[1:3]
    if min(height, width) < WINDOW[protocol]:
        raise UserError(
            f"images of {height}x{width} (height x width) are smaller than the {WINDOW[protocol]}x{WINDOW[protocol]} "
            f"window of SSIM protocol {protocol}"
        )
    if protocol == "B_padded":
        generated, target = _padded(generated), _padded(target)
    # Range 255 on 8 bits is range 1 on [0, 1]: SSIM does not change when values and range are scaled alike.
    span = torch.full((len(generated),), 255, dtype=torch.float64, device=generated.device)
    if protocol not in UNIFORM:
        own = (generated.amax((1, 2, 3)) - generated.amin((1, 2, 3))).double()
        span = torch.where(own > 0, own, span)
    x, y = (images.permute(0, 3, 1, 2).contiguous().flatten(0, 1) for images in (generated, target))  # (N * 3, H, W)
    at_once = len(x) if x.is_cuda else BLOCK * torch.get_num_threads() // (height * width)
    blocks = zip(*(part.split(max(1, at_once)) for part in (x, y, span.repeat_interleave(3))), strict=True)
    # Rows first: torch would cut the sum of one whole image by its number of threads.
    of_rows = torch.cat([_similarity(x, y, span, protocol).mean(-1) for x, y, span in blocks])
    return of_rows.unflatten(0, (-1, 3)).mean((1, 2))


def mask_ssim(generated: Tensor, target: Tensor, mask: Tensor, protocol: str) -> Tensor:
    """SSIM, (N,) float64, of N pairs that are black outside mask, (N, H, W) of 0 and 1. An empty mask scores 1.

    Raises:
        UserError: as `ssim`, a mask of another shape or with other values, a protocol that nobody masks.
    """
    if protocol not in MASKED:
        raise UserError(f"no mask-SSIM protocol {protocol!r}; choose {' or '.join(MASKED)}")
    check_images(generated, target)
    if mask.shape != generated.shape[:3] or not ((mask == 0) | (mask == 1)).all():
        raise UserError(f"the masks are {tuple(mask.shape)}; expected {tuple(generated.shape[:3])} of 0 and 1")
    inside = mask.to(torch.uint8)[..., None]
    return ssim(generated * inside, target * inside, protocol)


def _similarity(x: Tensor, y: Tensor, span: Tensor, protocol: str) -> Tensor:
    """Equation 13 of Wang et al. 2004 at the windows that lie inside: (n, h, w) of (n, H, W) and (n,)."""
    x, y = (plane.int() if protocol in UNIFORM else plane.double() for plane in (x, y))
    count = WINDOW[protocol] ** 2

    def mean(values: Tensor) -> Tensor:
        if protocol not in UNIFORM:
            return _gaussian(_gaussian(values, 1), 2)
        return _sum(_sum(values, WINDOW[protocol], 1), WINDOW[protocol], 2).double().mul_(1 / count)

    # Operations in place, and variances only as their sum: the arithmetic waits for memory. What x and y have in common
    # is taken in the same steps above and below the line, so that equal images have 1.
    mean_x, mean_y, squares, product = mean(x), mean(y), mean((x * x).add_(y * y)), mean(x * y)
    of_means = mean_x * mean_y
    square_means = mean_x.square_().add_(mean_y.square_())
    bessel = count / (count - 1) if protocol in UNIFORM else 1.0
    c1, c2 = ((k * span).square()[:, None, None] for k in (0.01, 0.03))
    above = product.sub_(of_means).mul_(2 * bessel).add_(c2).mul_(of_means.mul_(2).add_(c1))
    below = squares.sub_(square_means).mul_(bessel).add_(c2).mul_(square_means.add_(c1))
    return above.div_(below)


def _gaussian(values: Tensor, dim: int) -> Tensor:
    """The weighted means over the Gaussian windows along one side."""
    reach = WINDOW["B"] // 2
    weights = [math.exp(-(step**2) / (2 * SIGMA**2)) for step in range(-reach, reach + 1)]
    inside = values.shape[dim] - 2 * reach
    total = values.narrow(dim, 0, inside) * (weights[0] / sum(weights))
    for start, weight in enumerate(weights[1:], 1):
        total.add_(values.narrow(dim, start, inside), alpha=weight / sum(weights))
    return total


def _sum(values: Tensor, window: int, dim: int) -> Tensor:
    """The sums over the uniform windows along one side. 7 pixels are 1, 2 and 4 side by side, 51 are 1, 2, 16 and 32;
    and the sum of 4 is that of 2 and the next 2."""
    inside = values.shape[dim] - window + 1
    total, start, length, sums = values.narrow(dim, 0, inside), 1, 1, values
    while 2 * length <= window:
        rest = sums.shape[dim] - length
        sums = sums.narrow(dim, 0, rest) + sums.narrow(dim, length, rest)
        length *= 2
        if window & length:
            total = total + sums.narrow(dim, start, inside)
            start += length
    return total


def _padded(images: Tensor) -> Tensor:
    """PATN's white sides: (N, H, 256 or 176, 3) -> (N, H, 256, 3)."""
    width = images.shape[2]
    if width not in (INNER, INNER + 2 * BAND):
        raise UserError(
            f"images {width} pixels wide; SSIM protocol B_padded is defined for DeepFashion's "
            f"{INNER + 2 * BAND} or {INNER}"
        )
    inner = images[:, :, BAND:-BAND] if width > INNER else images
    return F.pad(inner, (0, 0, BAND, BAND), value=255)


def check_images(*batches: Tensor) -> None:
    """Raises UserError unless all are (N, H, W, 3) uint8 of one shape, H and W above 0."""
    for images in batches:
        shape = tuple(images.shape)
        if images.dtype != torch.uint8 or images.ndim != 4 or shape[3] != 3 or 0 in shape[1:]:
            raise UserError(f"images are {images.dtype} {shape}; expected uint8 (N, H, W, 3), H and W above 0")
        if images.shape != batches[0].shape:
            raise UserError(f"generated images {tuple(batches[0].shape)} and targets {shape} differ in size or number")
