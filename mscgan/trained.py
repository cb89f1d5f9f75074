"""A trained run, ready to make images, whatever its family."""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mscgan import config as configuration
from mscgan.checks import check_trained
from mscgan.data.read import choose_pairs, read_images
from mscgan.data.shards import ShardSet
from mscgan.errors import UserError
from mscgan.keys import STAGES, Config
from mscgan.models import FAMILIES
from mscgan.pictures import grid, pose_column, to_uint8
from mscgan.prepare import Inputs

BATCH = 16  # pairs that go through the networks at once


@dataclass(frozen=True)
class Trained:
    """The networks of a family that make images (its MAKES), in eval mode on their device, and its configuration."""

    family: ModuleType
    networks: nn.ModuleDict
    config: Config
    stage: str  # the last that trained them

    @torch.inference_mode()
    def images(self, x: Tensor, keypoints: Tensor) -> dict[str, Tensor]:
        """What is shown and scored, by title, the answer last: (N, 3, H, W) float32, near [-1, 1] but not clipped.

        Args:
            x: source images (N, H, W, 3) uint8; moved to the networks' device.
            keypoints: target poses (N, 18, 2), (x, y) in pixels, missing (-1, -1).

        Raises:
            UserError: images of another size than the model's.
        """
        data = self.config.data
        if tuple(x.shape[1:]) != (data.height, data.width, 3):
            raise UserError(f"images are {tuple(x.shape[1:])}; the model takes ({data.height}, {data.width}, 3)")
        device = next(self.networks.parameters()).device
        flip = torch.zeros(len(x), dtype=torch.bool, device=device)
        inputs = Inputs(x.to(device), None, None, keypoints.to(device, torch.float32), flip, data)
        made = self.family.images(self.stage, self.networks, inputs)
        return {title: images.float() for title, images in made.items()}


def read_config(folder: Path) -> Config:
    """The configuration of a trained run, before its networks are built.

    Raises:
        UserError: no such folder, or its configuration or weights are missing, or the configuration is broken.
    """
    check_trained(folder)
    return configuration.load(str(folder / "config.yaml"))


def load(folder: Path) -> Trained:
    """The networks of a run, on the CUDA device or else the CPU.

    Reads RUN/config.yaml and RUN/generator.safetensors (the averages of the weights, and the stage they are of).

    Raises:
        UserError: a file is missing or broken, or the weights are of other networks than the configuration's.
    """
    config = read_config(folder)
    family = FAMILIES[config.family]
    networks = family.build(config.options(), config.data.height, config.data.width)
    networks = nn.ModuleDict({name: networks[name] for name in family.MAKES})
    try:
        with safe_open(folder / "generator.safetensors", framework="pt") as file:
            networks.load_state_dict({name: file.get_tensor(name) for name in file.keys()})
            stage = (file.metadata() or {}).get("stage", "none").partition(":")[0]  # I:352000
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{folder / 'generator.safetensors'} cannot be read ({error}); copy it again, or give the command that "
            "trained the run, which writes it again from the checkpoint"
        ) from error
    except RuntimeError as error:  # what load_state_dict raises for other names or shapes
        reason = str(error).strip().splitlines()[-1].strip()
        why = f"{folder / 'generator.safetensors'} does not fit config.yaml beside it: {reason}"
        raise UserError(f"{why}; use the two files of one run, and the version that wrote them") from error
    if stage not in STAGES[config.family]:
        raise UserError(
            f"{folder / 'generator.safetensors'} says that stage {stage} made it, and {config.family} has "
            f"{', '.join(STAGES[config.family])}; use the file that training wrote"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Trained(family, networks.to(device).requires_grad_(False).eval(), config, stage)


def columns(trained: Trained, shards: ShardSet, sources: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """source, target pose, what the family makes, target: by title (N, H, W, 3) uint8; the poses are drawn larger.

    sources, targets: the numbers of N images each.
    """
    data, keypoints, x = trained.config.data, shards.keypoints[targets], read_images(shards, sources)
    made: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(x), BATCH):
        part = slice(start, start + BATCH)
        for name, images in trained.images(torch.from_numpy(x[part]), torch.from_numpy(keypoints[part])).items():
            made.setdefault(name, []).append(to_uint8(images))
    return (
        {"source": x, "target pose": pose_column(keypoints, data.height, data.width)}
        | {name: np.concatenate(parts) for name, parts in made.items()}
        | {"target": read_images(shards, targets)}
    )


def sample_grid(trained: Trained, shards: ShardSet, count: int, title: str = "") -> Image.Image:
    """source | target pose | what the family makes | target, a row a pair, for `count` pairs spread over the table.

    title: written above; "people of the ... split" without one.
    """
    sources, targets = shards.pairs[choose_pairs(shards, count)].T
    return grid(columns(trained, shards, sources, targets), title or f"people of the {shards.split} split")
