"""The configuration: dataclasses with defaults, then a YAML preset, then key=value from the command line.

Importing this file costs no torch, so that the submit path stays quick. Unknown keys are refused.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mscgan.errors import UserError

PRESETS = Path(__file__).parent / "configs"


@dataclass
class Data:
    root: str = ""  # folder with manifest.json, as shards/build.py writes it
    stage_to: str = ""  # node-local folder that the launcher copies the shards to before training; empty: none
    staged: str = ""  # the copy, as the launcher tells it to the ranks of a node
    height: int = 128  # pixels; must be what the shards hold
    width: int = 64  # pixels; height or height / 2
    decode: str = "auto"  # JPEG decoding: auto | cpu | mixed (DALI's GPU decoder)
    threads: int = 2  # DALI's CPU threads a rank
    flip: float = 0.5  # probability of mirroring a pair (left and right joints swapped)
    heatmap: str = "gaussian"  # gaussian exp(-d^2 / 2 sigma^2) | disc (1 within the radius) | disc_pg2 (-1 beyond)
    sigma: float = 6.0  # pixels, of the gaussian
    radius: float = 4.0  # pixels, of the disc and of the body mask's limbs
    mask: str = "pg2"  # construction of the body mask M_p: pg2 | pose-gan
    max_corrupt: int = 16  # images that may turn out undecodable before the run stops


@dataclass
class Model:
    base: int = 128  # channels of the first layer; the paper's width
    discriminators: int = 2  # 1, 2 (MsCGAN) or 3: scales 1, 1/2, 1/4 (section 4.3)
    pool: str = "mean2"  # downsampling for D: mean2 (2x2 mean) | mean3 (pix2pixHD's 3x3, stride 2)


@dataclass
class Loss:
    lambda_bg_1: float = 1.0  # equation 1; PG2's value
    lambda_L1_2: float = 10.0  # equation 4; PG2: 10 for Market-1501, 50 for DeepFashion
    lambda_bg_2: float = 10.0  # equation 4; PG2 weighs L1 and masked L1 alike
    lambda_D: list[float] = field(default_factory=list)  # equation 3, a weight a discriminator; empty: equal shares


@dataclass
class Train:
    images_I: int = 352_000  # pairs in stage I (G1 alone); PG2's 22k steps of 16
    images_II: int = 224_000  # pairs in stage II (G2 and D, G1 frozen); PG2's 14k steps of 16
    images_joint: int = 0  # pairs with G1, G2 and D trained together, after the two stages
    init: str = ""  # generator.safetensors to start from
    batch: int = 16  # pairs an optimiser step, over all ranks
    accumulate: int = 1  # micro-batches an optimiser step
    lr: float = 1e-4  # Adam (section 4.2)
    betas: list[float] = field(default_factory=lambda: [0.5, 0.9])  # Adam (section 4.2)
    ema_halflife: int = 10_000  # pairs after which a weight counts half in the generators' average
    seed: int = 0
    backend: str = "deepspeed"  # deepspeed | ddp
    zero: int = 1  # DeepSpeed's ZeRO stage
    precision: str = "bf16"  # bf16 | fp16 (CUDA only) | fp32
    compile: bool = False  # torch.compile each network
    cuda_graphs: bool = False  # compile, and replay as CUDA graphs: for batches too small to keep a GPU busy


@dataclass
class Log:
    every: int = 1_600  # pairs between two lines of metrics.jsonl
    samples: int = 32_000  # pairs between two grids of pictures
    checkpoint: int = 32_000  # pairs between two checkpoints
    keep: int = 2  # checkpoints kept


@dataclass
class Config:
    run: str = ""  # the run's folder: configuration, checkpoints, logs, pictures, scores
    resume: str = "auto"  # auto: go on from the newest complete checkpoint | never: refuse a folder that has one
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    loss: Loss = field(default_factory=Loss)
    train: Train = field(default_factory=Train)
    log: Log = field(default_factory=Log)


CHOICES = {
    "resume": ("auto", "never"),
    "data.decode": ("auto", "cpu", "mixed"),
    "data.heatmap": ("gaussian", "disc", "disc_pg2"),
    "data.mask": ("pg2", "pose-gan"),
    "model.discriminators": (1, 2, 3),
    "model.pool": ("mean2", "mean3"),
    "train.backend": ("deepspeed", "ddp"),
    "train.zero": (0, 1, 2, 3),
    "train.precision": ("bf16", "fp16", "fp32"),
}
POSITIVE = (
    "data.height data.width data.threads data.sigma data.radius model.base train.batch train.accumulate train.lr "
    "train.ema_halflife log.every log.samples log.checkpoint log.keep"
).split()
NOT_NEGATIVE = (
    "train.images_I train.images_II train.images_joint train.seed data.max_corrupt data.flip loss.lambda_bg_1 "
    "loss.lambda_L1_2 loss.lambda_bg_2"
).split()


def load(preset: str, overrides: list[str] = ()) -> Config:
    """The configuration of a preset's name or a YAML file's path, then `key=value` overrides, checked.

    Raises:
        UserError: an unknown preset, key or value.
    """
    path = PRESETS / f"{preset}.yaml" if (PRESETS / f"{preset}.yaml").exists() else Path(preset)
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
        raise UserError(f"no configuration {preset!r}; give one of {names}, or the path of a YAML file")
    for override in overrides:
        if "=" not in override or override.startswith("-"):
            raise UserError(f"{override!r} is not of the form key=value, for example train.batch=32")
    try:
        merged = OmegaConf.merge(
            OmegaConf.structured(Config),
            OmegaConf.create(yaml.safe_load(path.read_text()) or {}),
            OmegaConf.from_dotlist(list(overrides)),
        )
        config = OmegaConf.to_object(merged)
    # TypeError: a list where keys are expected, or keys where a list is.
    except (OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
        text = str(error).split("\n")[0] if isinstance(error, OmegaConfBaseException) else str(error)
        reason = " ".join(text.split())
        if getattr(error, "full_key", None):
            reason = f"{error.full_key}: {reason}"
        raise UserError(f"configuration {path.name}: {reason}; mscgan/config.py lists every key") from error
    _check(config)
    return config


def save(config: Config, path: Path) -> None:
    """Writes the resolved configuration as YAML that `load` reads back; a kill leaves the old file or the new one."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    partial.rename(path)


def micro_batch(batch: int, world: int, accumulate: int) -> int:
    """Pairs a rank takes at once, from the pairs of an optimiser step.

    Raises:
        UserError: the batch does not divide.
    """
    share = world * accumulate
    if batch % share:
        below, above = batch // share * share, -(-batch // share) * share
        better = f"{below} or {above}" if below else f"{above}"
        raise UserError(f"batch {batch} is not a multiple of {world} ranks x {accumulate}; set train.batch to {better}")
    return batch // share


def _check(config: Config) -> None:
    values = OmegaConf.structured(config)
    for key, choices in CHOICES.items():
        value = OmegaConf.select(values, key)
        if value not in choices:
            raise UserError(f"{key} is {value!r}; choose one of {', '.join(map(str, choices))}")
    for key in POSITIVE:
        if not 0 < OmegaConf.select(values, key) < math.inf:
            raise UserError(f"{key} is {OmegaConf.select(values, key)}; it must be above 0")
    for key in NOT_NEGATIVE:
        if not 0 <= OmegaConf.select(values, key) < math.inf:
            raise UserError(f"{key} is {OmegaConf.select(values, key)}; it must not be negative")
    if config.data.flip > 1:
        raise UserError(f"data.flip is {config.data.flip}; it is a probability, from 0 to 1")
    if len(config.train.betas) != 2 or not all(0 <= beta < 1 for beta in config.train.betas):
        raise UserError(f"train.betas is {config.train.betas}; give two numbers, each 0 or more and below 1")
    height, width = config.data.height, config.data.width
    if height & (height - 1) or height < 32 or width not in (height, height // 2):
        raise UserError(
            f"images of {height}x{width} (height x width): the networks take a height that is a power of two, 32 or "
            "more, and a width of the height or half of it; set data.height and data.width"
        )
    if config.model.base % 8:
        raise UserError(f"model.base is {config.model.base}; it must be a multiple of 8 (the FC layers scale with it)")
    if config.loss.lambda_D and len(config.loss.lambda_D) != config.model.discriminators:
        raise UserError(
            f"loss.lambda_D has {len(config.loss.lambda_D)} weights for model.discriminators="
            f"{config.model.discriminators}; give one a discriminator, or none for equal shares"
        )
