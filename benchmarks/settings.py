"""The configurations that are measured: any, or where mscgan/config.py's packages are missing the presets alone."""

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.needs import missing
from mscgan.errors import UserError
from mscgan.keys import Config

# What of the presets in mscgan/configs a step's networks, losses and inputs depend on; a test compares them.
PRESETS = {
    "market1501": {},
    "deepfashion": {
        "data.height": 256, "data.width": 256, "mscgan.lambda_L1_2": 50.0, "mscgan.lambda_bg_2": 50.0,
    },
    "demo": {
        "data.height": 64, "data.width": 32, "data.sigma": 1.5, "data.radius": 2.0, "mscgan.base": 16,
        "mscgan.lambda_L1_2": 200.0, "mscgan.lambda_bg_2": 200.0, "train.ema_halflife": 500, "train.zero": 0,
    },
}  # fmt: skip


def load(preset: str, overrides: Sequence[str], precision: str) -> Config:
    """The configuration of a preset or YAML file, then `key=value` overrides, with this precision.

    Raises:
        UserError: as mscgan.config.load; or something else than a preset where its packages are not installed.
    """
    packages = missing(("yaml", "omegaconf"))
    if not packages:
        from mscgan import config

        return config.load(preset, [f"train.precision={precision}", *overrides])
    if preset not in PRESETS or overrides:
        raise UserError(
            f"--configs {preset} --set {' '.join(overrides)}: without {packages}, which is not installed, there are "
            f"{', '.join(PRESETS)} as they are; install it, or leave --set out"
        )
    return changed(Config(), PRESETS[preset] | {"train.precision": precision})


def changed(config: Config, values: dict[str, object]) -> Config:
    """A copy of the configuration with other values, by their dotted keys."""
    for key, value in values.items():
        part, _, name = key.partition(".")
        config = replace(config, **{part: replace(getattr(config, part), **{name: value})})
    return config
