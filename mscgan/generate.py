"""Makes pictures with a trained run: `python -m mscgan.generate --run RUN ...`

    --image a.jpg --keypoints b.json [--out FILE.png]    the person of a.jpg in the pose of b.json, as stage II makes
                                                         it (mscgan/inputs.py: which images and poses it takes)
    --pairs 8 [--split test] [--data DIR] [--out ...]    source | target pose | stage I | stage II | target, for
                                                         pairs spread evenly over the split's pair table
Prints the path of the PNG. Runs on the CUDA device where there is one.
"""

import argparse
import io
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mscgan import config as configuration
from mscgan.config import Config, Data
from mscgan.data.shards import ShardSet
from mscgan.errors import UserError, run
from mscgan.inputs import read_image, read_pose
from mscgan.networks import Generators
from mscgan.ops.condition import condition
from mscgan.pictures import grid, pose_column, save_png, to_uint8

BATCH = 16  # pairs that go through the networks at once


def load_generators(folder: Path) -> tuple[Generators, Config]:
    """The generators of a run, in eval mode on the CUDA device or else the CPU, and the run's configuration.

    Reads RUN/config.yaml and RUN/generator.safetensors (the average of the weights, names "G1.…" and "G2.…").

    Raises:
        UserError: a file is missing or broken, or the weights are of other networks than the configuration's.
    """
    for name in ("config.yaml", "generator.safetensors"):
        if not (folder / name).is_file():
            raise UserError(f"{folder} has no {name}; give the folder of a run whose training has finished or saved")
    config = configuration.load(str(folder / "config.yaml"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generators = Generators(config.data.height, config.data.width, config.model.base)
    try:
        generators.load_state_dict(load_file(folder / "generator.safetensors"))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{folder / 'generator.safetensors'} cannot be read ({error}); copy it again") from error
    except RuntimeError as error:  # what load_state_dict raises for other names or shapes
        reason = str(error).strip().splitlines()[-1].strip()
        why = f"{folder / 'generator.safetensors'} does not fit config.yaml beside it: {reason}"
        raise UserError(f"{why}; use the two files of one run, and the version that wrote them") from error
    return generators.to(device).requires_grad_(False).eval(), config


@torch.inference_mode()
def generate(generators: Generators, x: Tensor, keypoints: Tensor, data: Data) -> tuple[Tensor, Tensor]:
    """The images of stage I and stage II, y1 and y_hat: (N, 3, H, W) float32, near [-1, 1] but not clipped to it.

    Args:
        x: source images (N, H, W, 3) uint8; moved to the generators' device.
        keypoints: target poses (N, 18, 2), (x, y) in pixels, missing (-1, -1).
        data: the run's, for how heatmaps are drawn.

    Raises:
        UserError: images of another size than the model's.
    """
    if tuple(x.shape[1:]) != (data.height, data.width, 3):
        raise UserError(f"images are {tuple(x.shape[1:])}; the model takes ({data.height}, {data.width}, 3)")
    device = next(generators.parameters()).device
    flip = torch.zeros(len(x), dtype=torch.bool, device=device)
    given = condition(
        x.to(device), keypoints.to(device, torch.float32), flip, data.heatmap, sigma=data.sigma, radius=data.radius
    )
    y1, y_hat = generators(given)
    return y1.float(), y_hat.float()


def choose_pairs(shards: ShardSet, count: int) -> np.ndarray:
    """`count` rows of the pair table, (count,) int64, spread evenly from its first to its last.

    Raises:
        UserError: count is below 1 or above the number of pairs.
    """
    if not 1 <= count <= len(shards.pairs):
        raise UserError(f"{count} pairs asked for; {shards.root} has 1 to {len(shards.pairs)} in this split")
    return np.linspace(0, len(shards.pairs) - 1, count).round().astype(np.int64)


def open_shards(config: Config, split: str, root: str = "") -> ShardSet:
    """A split of the run's shards, or of another folder's.

    Raises:
        UserError: no such shards, of another image size than the model's, or without pairs.
    """
    if not (root or config.data.root):
        raise UserError("the run's config.yaml names no shards (data.root is empty); give them with --data DIR")
    shards = ShardSet(Path(root or config.data.root), split)
    shards.check_size(config.data.height, config.data.width)
    if not len(shards.pairs):
        raise UserError(f"split {split!r} of {shards.root} has no pairs")
    return shards


def read_images(shards: ShardSet, images: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) uint8 of the images with these numbers, decoded by Pillow.

    Raises:
        UserError: an image is not a whole JPEG of the shards' size; says which.
    """
    pictures = np.empty((len(images), shards.height, shards.width, 3), np.uint8)
    for slot, i in enumerate(images):
        try:
            with Image.open(io.BytesIO(shards.read(int(i))), formats=("JPEG",)) as file:
                picture = np.array(file.convert("RGB"))
        except (OSError, Image.DecompressionBombError) as error:
            raise UserError(f"{shards.locate(int(i))} is no whole JPEG ({error}); run shards/verify.py") from error
        if picture.shape != pictures.shape[1:]:
            raise UserError(f"{shards.locate(int(i))} is {picture.shape[:2]}, not the manifest's; run shards/verify.py")
        pictures[slot] = picture
    return pictures


def sample_grid(generators: Generators, shards: ShardSet, count: int, data: Data) -> Image.Image:
    """source | target pose | stage I | stage II | target, a row a pair, for `count` pairs spread over the table."""
    rows = choose_pairs(shards, count)
    sources, targets = shards.pairs[rows].T
    keypoints = shards.keypoints[targets]
    x = read_images(shards, sources)
    stages = [], []
    for start in range(0, count, BATCH):
        part = slice(start, start + BATCH)
        made = generate(generators, torch.from_numpy(x[part]), torch.from_numpy(keypoints[part]), data)
        for stage, images in zip(stages, made, strict=True):
            stage.append(to_uint8(images))
    return grid(
        {
            "source": x,
            "target pose": pose_column(keypoints, data.height, data.width),
            "stage I": np.concatenate(stages[0]),
            "stage II": np.concatenate(stages[1]),
            "target": read_images(shards, targets),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mscgan.generate", description="Makes pictures with a trained run.")
    parser.add_argument("--run", type=Path, required=True, help="the run's folder")
    parser.add_argument("--image", type=Path, help="a JPEG or PNG of a person")
    parser.add_argument("--keypoints", help="the pose to take: a file, or the text itself")
    parser.add_argument("--pairs", type=int, help="make a grid of so many pairs of the shards instead")
    parser.add_argument("--split", default="test", help="of which split the pairs are")
    parser.add_argument("--data", default="", help="shards to use instead of the run's data.root")
    parser.add_argument("--out", type=Path, help="the PNG to write; a file in the run's folder by default")
    options = parser.parse_args()
    if (options.pairs is None) == (options.image is None) or (options.image is None) != (options.keypoints is None):
        raise UserError("give --image with --keypoints, or --pairs alone")
    if options.out and options.out.suffix.lower() != ".png":
        raise UserError(f"--out {options.out}: pictures are written as PNG; give a name that ends with .png")
    torch.backends.cudnn.deterministic = True  # the same command, the same picture
    generators, config = load_generators(options.run)
    if options.pairs is not None:
        out = options.out or options.run / f"pairs-{options.split}.png"
        shards = open_shards(config, options.split, options.data)
        picture = sample_grid(generators, shards, options.pairs, config.data)
    else:
        out = options.out or options.run / f"{options.image.stem}-in-new-pose.png"
        x, note = read_image(options.image, config.data.height, config.data.width)
        keypoints = read_pose(options.keypoints, config.data.height, config.data.width)
        if note:
            print(note, file=sys.stderr)
        _, y_hat = generate(generators, torch.from_numpy(x)[None], torch.from_numpy(keypoints)[None], config.data)
        picture = Image.fromarray(to_uint8(y_hat)[0])
    try:
        save_png(picture, out)
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror}); give another file with --out") from error
    print(out)


if __name__ == "__main__":
    run(main)
