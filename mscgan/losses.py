"""Terms that several papers share. Nothing here calls backward; sums are float32.

Expectations are means over the batch and norms means over all elements (PG2's reading of the papers' sums), so no
weight depends on the batch or the image size. Each paper's loss is put together in its file of mscgan/models.
"""

import re

import torch
import torch.nn.functional as F
from torch import Tensor

Terms = dict[str, Tensor]  # unweighted and detached, by the names that logs and plots show

MEANING = {  # of the terms by their names; k is a discriminator's number
    "L1_1": "mean |y1 - y|",
    "bg_1": "mean |y1 - y| M_p",
    "L1_2": "mean |y_hat - y|",
    "bg_2": "mean |y_hat - y| M_p",
    "Dk_real": "-log Dk(x, y)",
    "Dk_fake": "-log(1 - Dk(x, y_hat))",
    "G_Dk": "-log Dk(x, y_hat)",
    "D_real": "-log D(y)",  # PG2's D sees one image
    "D_source": "-log(1 - D(x))",
    "D_fake": "-log(1 - D(y_hat))",
    "G_D": "-log D(y_hat)",  # in its edition for DeepFashion the mean of this and of the same of x
    "paf": "mean (L - L*)^2",  # of part affinity fields, summed over the network's stages
    "heat": "mean (S - S*)^2",  # of confidence maps, likewise
}


def meaning(name: str) -> str:
    """What a term of the log is, unweighted: "D2_real" -> "-log D2(x, y)". A name that no table has gives ""."""
    number = re.search(r"D(\d)", name)
    if not number:
        return MEANING.get(name, "")
    return MEANING.get(name.replace(number[0], "Dk"), "").replace("Dk", number[0])


def as_real(logits: Tensor) -> Tensor:
    """-log D of logits (N,): binary cross-entropy against "real", for D of real images and for G of its own."""
    return F.softplus(-logits.float()).mean()


def as_fake(logits: Tensor) -> Tensor:
    """-log(1 - D) of logits (N,): binary cross-entropy against "fake", for D of generated images."""
    return F.softplus(logits.float()).mean()


def mean(terms: list[Terms]) -> Terms:
    """The means over the micro-batches of a step."""
    return {name: torch.stack([part[name] for part in terms]).mean() for name in terms[0]}
