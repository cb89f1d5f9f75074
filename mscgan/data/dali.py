"""DALI: JPEG bytes to uint8 RGB images on the training device. The only import of nvidia.dali.

The bytes come from a callable (`fn.external_source`), so what is decoded, and in which order, is decided in loader.py.
DALI runs `AHEAD` batches ahead of what is asked for, on its own threads.
"""

import os
import sys
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from mscgan.errors import UserError

if TYPE_CHECKING:
    from nvidia.dali.pipeline import Pipeline

AHEAD = 2  # batches that DALI works on, beside the batch that the loader holds ready


def build(
    source: Callable[[], list[np.ndarray]], batch: int, threads: int, device: torch.device, decode: str
) -> "Pipeline":
    """A pipeline that decodes lists of `batch` uint8 arrays from source(); `run()` gives (H, W, 3) uint8 on the device.

    `run()` raises RuntimeError where an image of the batch cannot be decoded; the pipeline is then of no more use.
    EXIF orientation is not applied, as nowhere in this project, and chroma is upsampled as Pillow does it.

    Raises:
        UserError: DALI is not installed.
    """
    try:  # here, since which DALI there is depends on the machine's CUDA, and pip cannot choose it
        from nvidia.dali import fn, types
        from nvidia.dali.pipeline import Pipeline
    except ModuleNotFoundError as error:
        cuda = 12 if (torch.version.cuda or "").startswith("12.") else 13
        raise UserError(
            f"DALI, which reads the images, is not installed ({error}); this torch goes with the extra cuda{cuda}: "
            f"pip install 'mscgan[cuda{cuda}]'"
        ) from error
    on_gpu = device.type == "cuda"
    index = (torch.cuda.current_device() if device.index is None else device.index) if on_gpu else None
    pipeline = Pipeline(batch, threads, index, prefetch_queue_depth=AHEAD)
    with pipeline:
        uint8, rgb = types.UINT8, types.RGB  # type: ignore[attr-defined]  # DALI adds these names at run time
        jpegs = fn.external_source(source, batch=True, dtype=uint8, ndim=1)
        images = fn.decoders.image(
            jpegs, device=decode, output_type=rgb, adjust_orientation=False, jpeg_fancy_upsampling=True
        )
        pipeline.set_outputs(images.gpu() if on_gpu else images)
    pipeline.build()
    return pipeline


def refused(jpegs: list[bytes], device: torch.device, decode: str) -> list[int]:
    """The numbers of the images that this decoder cannot decode, found by halving."""
    arrays = [np.frombuffer(jpeg, np.uint8) for jpeg in jpegs]
    try:
        build(lambda: arrays, len(arrays), 1, device, decode).run()
        return []
    except RuntimeError:
        half = len(jpegs) // 2
        if not half:
            return [0]
        return refused(jpegs[:half], device, decode) + [half + n for n in refused(jpegs[half:], device, decode)]


def choose(decode: str, device: torch.device, rank: int) -> str:
    """The decoder for the configured cpu | mixed | auto: "cpu", or "mixed" which is DALI's on the GPU.

    Auto is cpu: at these sizes one thread decodes several times as many images as a GPU can train on, and decoding on
    the GPU takes time from training. With fewer than two cores a GPU there is no thread to spare, and the GPU decodes.

    Raises:
        UserError: mixed on a CPU.
    """
    if device.type == "cpu":
        if decode == "mixed":
            raise UserError("data.decode=mixed needs a GPU, and this process trains on the CPU; use data.decode=cpu")
        return "cpu"
    if decode != "auto":
        return decode
    cores, machine = len(os.sched_getaffinity(0)), os.cpu_count()
    if cores == machine:  # this rank is not bound to some of them, so all ranks here share them
        cores //= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    chosen = "mixed" if cores < 2 else "cpu"
    if rank == 0:
        _announce(f"data.decode=auto: JPEGs are decoded on the {'GPU' if cores < 2 else 'CPU'}, {cores} core(s) a rank")
    return chosen


@cache
def _announce(line: str) -> None:
    """Once a process, however many loaders it makes."""
    print(line, file=sys.stderr, flush=True)
