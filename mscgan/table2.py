"""The paper's table 2: the rows that we train, and the numbers that were published. It costs no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    name: str  # of the runs' folders: NAME-seed-0
    family: str
    variant: str
    title: str
    published: str = ""  # its row in PAPER


@dataclass(frozen=True)
class Published:
    title: str
    market1501: tuple[float, ...] = ()  # by COLUMNS; empty: not given
    deepfashion: tuple[float, ...] = ()  # SSIM and IS alone


ROWS = (
    # Figure 1's Single-scale-1 is the same network by our reading (configs/variant/single-scale-1.yaml).
    Row("one-discriminator", "mscgan", "one-discriminator", "One discriminator, Single-scale-1", "One discriminator"),
    Row("mscgan", "mscgan", "mscgan", "MsCGAN", "MsCGAN"),
    Row("three-discriminators", "mscgan", "three-discriminators", "Three discriminators", "Three discriminators"),
    Row("single-scale-2", "mscgan", "single-scale-2", "Single-scale-2"),  # of figure 1; table 2 has no numbers of it
    Row("pg2", "pg2", "", "PG2", "Ma et al. NIPS2017"),
)
SAME_AS = {"single-scale-1": "one-discriminator"}  # variants that another row trains
SHARED = {"mscgan": "I"}  # the stage that a family's rows have in common: no discriminator takes part in it

# A score of evaluation.json and how the table calls it. The paper measures as PG2 did, which is protocol A.
COLUMNS = {"ssim_A": "SSIM", "is": "IS", "mask_ssim_A": "mask-SSIM", "mask_is": "mask-IS"}

# Table 2 of the paper. The three that it quotes were measured by their own authors.
PAPER = (
    Published("One discriminator", (0.248, 3.167, 0.791, 3.246), (0.737, 3.212)),
    Published("MsCGAN", (0.219, 3.588, 0.764, 3.741), (0.725, 3.335)),
    Published("Three discriminators", (0.216, 3.459, 0.778, 3.558), (0.691, 3.284)),
    Published("Ma et al. NIPS2017", (0.253, 3.460, 0.792, 3.435), (0.762, 3.090)),
    Published("Ma et al. CVPR2018", (0.099, 3.483, 0.614, 3.491), (0.614, 3.228)),
    Published("Pumarola et al. CVPR2018", (), (0.747, 2.97)),
)
PAPER_PAIRS = 12_800  # of the test, on either data set (section 4.1)

# Pairs of a preset that is not for training every row to its end: as many for each row, of whichever family.
PAIRS = {
    "demo": {
        "mscgan": {"I": 8_000, "II": 0, "joint": 2_400},
        "pg2": {"I": 8_000, "II": 2_400},
    }
}


def run_name(row: Row, seed: int) -> str:
    return f"{row.name}-seed-{seed}"


def shared_name(family: str, seed: int) -> str:
    """Of the run that trains the stage that a family's rows share."""
    return f"{family}-stage-{SHARED[family]}-seed-{seed}"
