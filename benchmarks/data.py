"""Decoded images a second: this project's loader beside what people use instead, on the same shards.

Every way makes uint8 batches (N, H, W, 3) and yields how many images each holds; the loader's, DALI's and the ceiling's
are on the device. A window first takes batches that are not counted: they were decoded while other ways were measured.
"""

import io
import os
import time
from collections.abc import Iterator

import numpy as np
import torch
import webdataset
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.shards_cache import shards as cached_shards
from benchmarks.timing import interleave, summary, synchronize, together
from mscgan import dist
from mscgan.data.loader import Loader
from mscgan.data.shards import ShardSet
from mscgan.dist import Ranks

SETTLE = 8  # batches of a window that are not counted; more than any way decodes ahead


def loader(shards: ShardSet, batch: int, threads: int, ranks: Ranks, decode: str) -> Iterator[int]:
    """mscgan.data.loader: pairs in the global order, decoded by DALI."""
    source = Loader(shards, batch // 2, ranks.rank, ranks.world, 0, 0.5, ranks.device, decode, threads)
    for pairs in source:
        yield 2 * len(pairs.x)


def webdataset_pillow(shards: ShardSet, batch: int) -> Iterator[int]:
    """webdataset in this process, decoding with Pillow, one image after the other."""
    tars = sorted(str(path) for path in shards.root.glob("train-*.tar"))
    images = []
    while True:
        source = webdataset.WebDataset(tars, shardshuffle=False, nodesplitter=lambda urls: urls, empty_check=False)
        for image, _ in source.decode("rgb8").to_tuple("jpg", "json"):
            images.append(image)
            if len(images) == batch:
                torch.from_numpy(np.stack(images))
                yield batch
                images = []


class _Pairs(Dataset):
    """Pairs of the shards, decoded with Pillow."""

    def __init__(self, shards: ShardSet):
        self.shards = shards

    def __len__(self) -> int:
        return len(self.shards.pairs)

    def __getitem__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        pair = self.shards.pairs[row].tolist()
        images = [np.array(Image.open(io.BytesIO(self.shards.read(i))).convert("RGB")) for i in pair]
        return np.stack(images), self.shards.keypoints[pair]


def dataloader_pillow(shards: ShardSet, batch: int, workers: int) -> Iterator[int]:
    """torch's DataLoader with `workers` processes that decode with Pillow, pairs in random order."""
    source = DataLoader(
        _Pairs(shards), batch // 2, shuffle=True, num_workers=workers, persistent_workers=True, drop_last=True
    )
    while True:
        for images, _ in source:
            yield images.flatten(0, 1).shape[0]


def dali_webdataset(shards: ShardSet, batch: int, threads: int, ranks: Ranks, decode: str) -> Iterator[int]:
    """DALI's own webdataset reader with its shuffle buffer, and the same decoder as the loader's."""
    tars = sorted(str(path) for path in shards.root.glob("train-*.tar"))
    on_gpu = ranks.device.type == "cuda"
    pipeline = Pipeline(batch, threads, ranks.device.index if on_gpu else None, prefetch_queue_depth=2)
    with pipeline:
        jpegs = fn.readers.webdataset(
            paths=tars,
            index_paths=[f"{tar[:-4]}.idx" for tar in tars],
            ext=["jpg"],
            random_shuffle=True,
            initial_fill=256,
        )
        images = fn.decoders.image(
            jpegs, device=decode, output_type=types.RGB, adjust_orientation=False, jpeg_fancy_upsampling=True
        )
        pipeline.set_outputs(images.gpu() if on_gpu else images)
    pipeline.build()
    while True:
        (images,) = pipeline.run()
        yield len(torch.from_dlpack(images.as_tensor()))


def in_memory(shards: ShardSet, batch: int, ranks: Ranks) -> Iterator[int]:
    """The ceiling: all images decoded on the device before, a batch is an index operation."""
    decoded = [np.array(Image.open(io.BytesIO(shards.read(i))).convert("RGB")) for i in range(min(len(shards), 2048))]
    images = torch.from_numpy(np.stack(decoded)).to(ranks.device)
    rows, out = torch.randint(len(images), (64, batch), device=ranks.device), images.new_empty(batch, *images.shape[1:])
    while True:
        for row in rows:
            yield len(torch.index_select(images, 0, row, out=out))


def ways(shards: ShardSet, batch: int, threads: int, ranks: Ranks) -> dict[str, Iterator[int]]:
    """Every way that this machine can run. The DataLoader comes first: it forks, and the others start threads."""
    decoders = ["cpu", "mixed"] if ranks.device.type == "cuda" else ["cpu"]
    found = {"DataLoader + Pillow": dataloader_pillow(shards, batch, threads)}
    found["webdataset + Pillow"] = webdataset_pillow(shards, batch)
    for decode in decoders:
        found[f"loader {decode}"] = loader(shards, batch, threads, ranks, decode)
        found[f"DALI webdataset {decode}"] = dali_webdataset(shards, batch, threads, ranks, decode)
    return found | {"in memory (ceiling)": in_memory(shards, batch, ranks)}


class Window:
    """Takes batches of one way for some seconds at each call, and remembers how fast they came."""

    def __init__(self, source: Iterator[int], seconds: float, device: torch.device):
        self.source, self.seconds, self.device = source, seconds, device
        self.rates: list[float] = []  # images a second of each window, over all ranks
        self.batch_seconds: list[float] = []

    def __call__(self) -> None:
        for _ in range(SETTLE):
            next(self.source)
        synchronize(self.device)
        with together():
            count, began = 0, time.perf_counter()
            last = began
            while last - began < self.seconds:
                count += next(self.source)
                now = time.perf_counter()
                self.batch_seconds.append(now - last)
                last = now
            synchronize(self.device)
            rate = torch.tensor(count / (time.perf_counter() - began))
        self.rates.append(dist.mean({"rate": rate})["rate"] * torch.distributed.get_world_size())


def measure(
    ranks: Ranks, out, sizes: list[tuple[int, int]], people: int, batch: int, rounds: int, seconds: float
) -> dict:
    """Rows for every size and way. Rates are sums over the ranks, which share the machine's cores."""
    threads = max(1, len(os.sched_getaffinity(0)) // ranks.local_world)
    rows, workload = [], {}
    for height, width in sizes:
        shards = cached_shards(out, height, width, people, ranks)
        jpeg_bytes = sum(len(shards.read(i)) for i in range(len(shards))) / len(shards)
        workload[f"{height}x{width}"] = {
            "source": "synthetic", "images": len(shards), "tars": len(list(shards.root.glob("train-*.tar"))),
            "bytes_an_image": round(jpeg_bytes), "page_cache": "warm",
        }  # fmt: skip
        windows = {
            name: Window(source, seconds, ranks.device) for name, source in ways(shards, batch, threads, ranks).items()
        }
        interleave(windows, rounds)
        base = summary(windows["webdataset + Pillow"].rates)["median"]
        for name, window in windows.items():
            rates = summary(window.rates)
            batch_ms = 1000 * np.percentile(window.batch_seconds, (50, 95, 99))
            rows.append(
                {
                    "key": f"{height}x{width} {name}",
                    "size": f"{height}x{width}",
                    "way": name,
                    "metrics": {
                        "images_per_second": rates,
                        "batch_ms": dict(zip(("p50", "p95", "p99"), batch_ms.tolist(), strict=True)),
                        "times_webdataset": rates["median"] / base,
                    },
                }
            )
            window.source.close()
    return {
        "workload": workload | {"batch_images": batch, "threads_a_rank": threads, "ranks": ranks.world},
        "method": {
            "rounds": rounds,
            "window_seconds": seconds,
            "settle_batches": SETTLE,
            "order": "interleaved, alternating",
        },
        "definition": "images_per_second: decoded uint8 images over all ranks, two a pair",
        "rows": rows,
    }
