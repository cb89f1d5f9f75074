"""Terms that several papers share. Nothing here calls backward; sums are float32.

Expectations are means over the batch and norms means over all elements (PG2's reading of the papers' sums), so no
weight depends on the batch or the image size. Each paper's loss is put together in its file of mscgan/models.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

Terms = dict[str, Tensor]  # unweighted and detached, by the names that logs and plots show


def as_real(logits: Tensor) -> Tensor:
    """-log D of logits (N,): binary cross-entropy against "real", for D of real images and for G of its own."""
    return F.softplus(-logits.float()).mean()


def as_fake(logits: Tensor) -> Tensor:
    """-log(1 - D) of logits (N,): binary cross-entropy against "fake", for D of generated images."""
    return F.softplus(logits.float()).mean()


def mean(terms: list[Terms]) -> Terms:
    """The means over the micro-batches of a step."""
    return {name: torch.stack([part[name] for part in terms]).mean() for name in terms[0]}
