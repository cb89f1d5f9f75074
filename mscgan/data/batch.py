"""What the loader hands out."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Batch:
    """N pairs; images and keypoints are as stored, to be mirrored by the consumer where `flip` says so."""

    x: torch.Tensor  # (N, H, W, 3) uint8, source images
    y: torch.Tensor  # (N, H, W, 3) uint8, target images
    x_keypoints: torch.Tensor  # (N, 18, 2) float32, (x, y) pixels, missing (-1, -1)
    y_keypoints: torch.Tensor  # (N, 18, 2) float32
    flip: torch.Tensor  # (N,) bool
    pair: torch.Tensor  # (N,) int64 on the CPU, rows of the pair table
