"""The losses of section 3, equations 1 to 4. Nothing here calls backward.

Each sum comes with its terms, unweighted and detached, by the names that logs and plots show. A list of logits holds
one (N,) tensor a discriminator, as `Discriminators` returns them; expectations are means over the batch, norms are
means over all elements (PG2's reading), so no weight depends on batch or image size. All sums are float32.
"""

import torch.nn.functional as F
from torch import Tensor

from mscgan.ops.masked_l1 import masked_l1

Terms = dict[str, Tensor]


def equal_shares(count: int) -> list[float]:
    """lambda_D where the configuration gives none: the discriminators count alike and sum to 1."""
    return [1 / count] * count


def stage_I(y1: Tensor, y: Tensor, mask: Tensor, lambda_bg_1: float) -> tuple[Tensor, Terms]:
    """G1's loss (Equation 1). y1, y: (N, 3, H, W); mask: M_p, (N, 1, H, W), 1 on the person.

    The "background" term bg_1 is the paper's |(y - y1) * M_p|: with M_p as defined it weighs the person up.
    """
    L1, bg = masked_l1(y1, y, mask)
    return L1 + lambda_bg_1 * bg, {"L1_1": L1.detach(), "bg_1": bg.detach()}


def discriminator(real_logits: list[Tensor], fake_logits: list[Tensor], lambda_D: list[float]) -> tuple[Tensor, Terms]:
    """What the discriminators minimise: the negative of Equations 2 and 3, as binary cross-entropy of the logits."""
    total, terms = 0.0, {}
    for i, (real, fake, weight) in enumerate(zip(real_logits, fake_logits, lambda_D, strict=True), 1):
        real_term = F.softplus(-real.float()).mean()  # -log D(x, y)
        fake_term = F.softplus(fake.float()).mean()  # -log(1 - D(x, y_hat))
        total = total + weight * (real_term + fake_term)
        terms |= {f"D{i}_real": real_term.detach(), f"D{i}_fake": fake_term.detach()}
    return total, terms


def stage_II(
    y_hat: Tensor,
    y: Tensor,
    mask: Tensor,
    fake_logits: list[Tensor],
    lambda_D: list[float],
    lambda_L1_2: float,
    lambda_bg_2: float,
) -> tuple[Tensor, Terms]:
    """G2's loss (Equation 4), maximising log D(x, y_hat) as section 4.2 says. Shapes as in `stage_I`."""
    L1, bg = masked_l1(y_hat, y, mask)
    total, terms = lambda_L1_2 * L1 + lambda_bg_2 * bg, {"L1_2": L1.detach(), "bg_2": bg.detach()}
    for i, (fake, weight) in enumerate(zip(fake_logits, lambda_D, strict=True), 1):
        term = F.softplus(-fake.float()).mean()  # -log D(x, y_hat)
        total = total + weight * term
        terms[f"G_D{i}"] = term.detach()
    return total, terms
