"""Every key of the configuration: dataclasses with a default and a sentence a key. Standard library only.

mscgan/config.py reads them from YAML files and the command line, and says what values they may have.
"""

from dataclasses import dataclass, field

# Of each family, in the order in which a run has them.
STAGES = {"mscgan": ("I", "II", "joint"), "pg2": ("I", "II"), "paf": ("pose",)}
FIND_POSES = ("paf",)  # families that make no images
TRACKERS = ("wandb", "mlflow")
SCALES = (1, 2, 4)  # at which MsCGAN's D1, D2 and D3 judge: the full size, a half, a quarter


@dataclass
class Data:
    root: str = ""  # folder with manifest.json, as shards/build.py writes it
    stage_to: str = ""  # node-local folder that the launcher copies the shards to before training; empty: none
    staged: str = ""  # the copy, as the launcher tells it to the ranks of a node
    height: int = 128  # pixels; must be what the shards hold
    width: int = 64  # pixels; height or height / 2
    decode: str = "auto"  # JPEG decoding: auto | cpu | mixed (DALI's GPU decoder)
    threads: int = 0  # DALI's CPU threads a rank; 0: as many as the rank has cores, 8 at most
    flip: float = 0.5  # probability of mirroring a pair (left and right joints swapped)
    heatmap: str = "gaussian"  # gaussian exp(-d^2 / 2 sigma^2) | disc (1 within the radius) | disc_pg2 (-1 beyond)
    sigma: float = 6.0  # pixels, of the gaussian
    radius: float = 4.0  # pixels, of the disc and of the body mask's limbs
    mask: str = "pg2"  # construction of the body mask M_p: pg2 | pose-gan
    max_corrupt: int = 16  # images that may turn out undecodable before the run stops


@dataclass
class MsCGAN:
    base: int = 128  # channels of the first layer; the paper's width
    scales: list[int] = field(default_factory=lambda: [1, 2])  # of the discriminators: some of 1, 2 and 4 (section 4.3)
    pool: str = "mean2"  # downsampling for D: mean2 (2x2 mean) | mean3 (pix2pixHD's 3x3, stride 2)
    lambda_bg_1: float = 1.0  # equation 1; PG2's value
    lambda_L1_2: float = 10.0  # equation 4; PG2: 10 for Market-1501, 50 for DeepFashion
    lambda_bg_2: float = 10.0  # equation 4; PG2 weighs L1 and masked L1 alike
    lambda_D: list[float] = field(default_factory=list)  # equation 3, a weight a discriminator; empty: 1 each


@dataclass
class PG2:
    base: int = 128  # channels of the first layer
    edition: str = "market1501"  # of the public code, market1501 | deepfashion: G2's skips, D's batch (models/pg2.py)
    lambda_bg_1: float = 1.0  # of masked L1 in stage I
    lambda_L1_2: float = 10.0  # of L1 in stage II; 50 for DeepFashion
    lambda_bg_2: float = 10.0  # of masked L1 in stage II; 50 for DeepFashion


@dataclass
class PAF:
    base: int = 64  # channels of the trunk's first layer; the released network's
    width: int = 128  # channels of the features and of the stages' layers; the released network's
    stages: int = 6  # 1 to 6; the released network's
    enlarge: int = 3  # times that images are enlarged, so that small people's joints have cells of their own
    sigma: float = 7.0  # pixels of the enlarged image, of the confidence maps
    missing: str = "ignore"  # a joint without keypoint: ignore (nothing is known of it) | absent (it is not there)
    lambda_paf: float = 2.0  # of the fields beside the maps, as means: the original sums 38 channels against 19


@dataclass
class Train:
    pairs: dict[str, int] = field(default_factory=dict)  # of each of the family's stages; configs/family has defaults
    init: str = ""  # generator.safetensors to start from
    init_after: str = ""  # stage that trained `init` to its end: the run begins after it, as if it had had it itself
    batch: int = 16  # pairs an optimiser step, over all ranks
    accumulate: int = 1  # micro-batches an optimiser step
    lr: float = 1e-4  # Adam (section 4.2), at a batch of tuned_batch; mscgan/rates.py says what it is at another
    stage_lr: dict[str, float] = field(default_factory=dict)  # lr of the stages that have their own
    tuned_batch: int = 16  # pairs an optimiser step that lr is for
    warmup: int = 0  # pairs over which the rate rises from 0, at the start of a stage
    decay: float = 0.0  # share of a stage's pairs, its last, over which the rate falls to 0
    least_steps: int = 0  # of tuned_batch that a stage needs; training refuses fewer (mscgan/rates.py)
    betas: list[float] = field(default_factory=lambda: [0.5, 0.9])  # Adam (section 4.2)
    ema_halflife: int = 10_000  # pairs after which a weight counts half in the generators' average; 0: no average
    seed: int = 0
    backend: str = "deepspeed"  # deepspeed | ddp
    zero: int = 1  # DeepSpeed's ZeRO stage
    precision: str = "auto"  # auto: bf16 where the hardware computes in it, else fp32 | bf16 | fp16 (CUDA only) | fp32
    compile: bool = False  # torch.compile each network
    cuda_graphs: bool = False  # compile, and replay as CUDA graphs: for batches too small to keep a GPU busy


@dataclass
class Log:
    every: int = 1_600  # pairs between two lines of metrics.jsonl
    samples: int = 32_000  # pairs between two grids of pictures
    checkpoint: int = 32_000  # pairs between two checkpoints
    checkpoint_minutes: float = 5.0  # between two checkpoints; the later of the two counts
    keep: int = 2  # checkpoints kept
    trackers: list[str] = field(default_factory=list)  # beside TensorBoard: wandb, mlflow (mscgan/trackers.py)


@dataclass
class Config:
    run: str = ""  # the run's folder: configuration, checkpoints, logs, pictures, scores
    resume: str = "auto"  # auto: go on from the newest complete checkpoint | never: refuse a folder that has one
    allow: list[str] = field(default_factory=list)  # keys that a run that goes on may change (mscgan/schedule.py)
    family: str = "mscgan"  # the method: mscgan | pg2, or paf, which finds poses
    variant: str = ""  # a named setting of it, one of configs/variant
    data: Data = field(default_factory=Data)
    mscgan: MsCGAN = field(default_factory=MsCGAN)
    pg2: PG2 = field(default_factory=PG2)
    paf: PAF = field(default_factory=PAF)
    train: Train = field(default_factory=Train)
    log: Log = field(default_factory=Log)

    def options(self) -> MsCGAN | PG2 | PAF:
        """What the family takes for its networks and losses."""
        return getattr(self, self.family)
