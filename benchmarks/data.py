"""Decoded images a second: this project's loader beside what people use instead, on the same shards.

Every way makes uint8 batches (N, H, W, 3) and yields how many images each holds; the loader's, DALI's and the ceiling's
are on the device. Where the loader has T threads the others have T processes. A window first takes batches that are not
counted: they were decoded while other ways were measured.
"""

import io
import os
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.needs import missing, skip
from benchmarks.shards_cache import shards as cached_shards
from benchmarks.timing import interleave, slowest, summary, synchronize, together
from mscgan import dist
from mscgan.data.shards import ShardSet
from mscgan.dist import Ranks

BASE = "DataLoader + Pillow"  # what most people write
SETTLE = 8  # batches of a window that are not counted; more than any way decodes ahead


def loader(shards: ShardSet, batch: int, threads: int, ranks: Ranks, decode: str) -> Iterator[int]:
    """mscgan.data.loader: pairs in the global order, decoded by DALI."""
    from mscgan.data.loader import Loader

    source = Loader(shards, batch // 2, ranks.rank, ranks.world, 0, 0.5, ranks.device, decode, threads)
    for pairs in source:
        yield 2 * len(pairs.x)


def webloader(shards: ShardSet, batch: int, workers: int) -> Iterator[int]:
    """webdataset's WebLoader with `workers` processes that decode with Pillow, each of them tars drawn at random."""
    import webdataset

    tars = sorted(str(path) for path in shards.root.glob("train-*.tar"))
    images = (
        webdataset.WebDataset(tars, resampled=True, shardshuffle=False)
        .decode("rgb8")
        .to_tuple("jpg")
        .map(lambda found: found[0])
    )
    batches = images.batched(batch, collation_fn=np.stack)
    for found in webdataset.WebLoader(batches, batch_size=None, num_workers=workers):
        yield len(torch.as_tensor(found))


class _Pairs(Dataset):
    """Pairs of the shards as uint8 RGB, by a function that decodes a JPEG."""

    def __init__(self, shards: ShardSet, decode: Callable[[bytes], np.ndarray]):
        self.shards, self.decode = shards, decode

    def __len__(self) -> int:
        return len(self.shards.pairs)

    def __getitem__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        pair = self.shards.pairs[row].tolist()
        return np.stack([self.decode(self.shards.read(i)) for i in pair]), self.shards.keypoints[pair]


def dataloader(shards: ShardSet, batch: int, workers: int, decode: Callable[[bytes], np.ndarray]) -> Iterator[int]:
    """torch's DataLoader with `workers` processes that decode, pairs in random order."""
    source = DataLoader(
        _Pairs(shards, decode), batch // 2, shuffle=True, num_workers=workers, persistent_workers=True, drop_last=True
    )
    while True:
        for images, _ in source:
            yield images.flatten(0, 1).shape[0]


def pillow(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def simplejpeg(data: bytes) -> np.ndarray:
    """By libjpeg-turbo without what Pillow has around it."""
    from simplejpeg import decode_jpeg

    return decode_jpeg(data, "RGB")


def dali_webdataset(shards: ShardSet, batch: int, threads: int, ranks: Ranks, decode: str) -> Iterator[int]:
    """DALI's own webdataset reader with its shuffle buffer, and the same decoder as the loader's."""
    from nvidia.dali import fn, types
    from nvidia.dali.pipeline import Pipeline

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
    decoded = [pillow(shards.read(i)) for i in range(min(len(shards), 2048))]
    images = torch.from_numpy(np.stack(decoded)).to(ranks.device)
    rows, out = torch.randint(len(images), (64, batch), device=ranks.device), images.new_empty(batch, *images.shape[1:])
    while True:
        for row in rows:
            yield len(torch.index_select(images, 0, row, out=out))


def ways(shards: ShardSet, batch: int, threads: int, ranks: Ranks) -> tuple[dict[str, Iterator[int]], list[dict]]:
    """Every way that this machine can run, and an entry for each whose packages are not installed.

    Those of processes come first: they fork when their first batch is asked for, and the others start threads.
    """
    decoders = ["cpu", "mixed"] if ranks.device.type == "cuda" else ["cpu"]
    makers: dict[str, tuple[tuple[str, ...], Callable[[], Iterator[int]]]] = {
        BASE: ((), lambda: dataloader(shards, batch, threads, pillow)),
        "DataLoader + simplejpeg": (("simplejpeg",), lambda: dataloader(shards, batch, threads, simplejpeg)),
        "WebLoader + Pillow": (("webdataset",), lambda: webloader(shards, batch, threads)),
    }
    for way in decoders:
        makers[f"loader {way}"] = ("nvidia.dali",), lambda way=way: loader(shards, batch, threads, ranks, way)
        makers[f"DALI webdataset {way}"] = (
            ("nvidia.dali",),
            lambda way=way: dali_webdataset(shards, batch, threads, ranks, way),
        )
    makers["in memory (ceiling)"] = (), lambda: in_memory(shards, batch, ranks)
    found, skipped = {}, []
    for way, (imports, make) in makers.items():
        if packages := missing(imports):
            skip(f"the way {way!r} of data", packages)
            skipped.append({"way": way, "error": f"{packages}: not installed"})
        else:
            found[way] = make()
    return found, skipped


class Window:
    """Takes batches of one way for some seconds at each call, and remembers how fast they came."""

    def __init__(self, source: Iterator[int], seconds: float, device: torch.device):
        self.source, self.seconds, self.device = source, seconds, device
        self.rates: list[float] = []  # images a second of each window, over all ranks
        self.batch_seconds: list[float] = []
        self.batch_ms: dict[str, float] = {}  # percentiles of how long a batch took, on the slowest rank

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
        batch_ms = 1000 * np.percentile(self.batch_seconds, (50, 95, 99))
        self.batch_ms = dict(zip(("p50", "p95", "p99"), slowest(batch_ms.tolist()), strict=True))


def measure(
    ranks: Ranks,
    out,
    sizes: list[tuple[int, int]],
    people: int,
    batch: int,
    rounds: int,
    seconds: float,
    keep: Callable[[dict], None] = lambda found: None,
) -> dict:
    """Rows for every size and way. Rates are sums over the ranks, which share the machine's cores.

    keep: called with what there is so far after each window of each way.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // ranks.local_world)
    found = {
        "workload": {"batch_images": batch, "threads_or_processes_a_rank": threads, "ranks": ranks.world},
        "method": {
            "rounds": rounds,
            "window_seconds": seconds,
            "settle_batches": SETTLE,
            "order": "interleaved, alternating",
        },
        "definition": "images_per_second: decoded uint8 images over all ranks; batch ms: of the slowest rank",
        "base": BASE,
        "rows": [],
        "failures": [],
    }  # fmt: skip
    for height, width in sizes:
        shards, size = cached_shards(out, height, width, people, ranks), f"{height}x{width}"
        jpeg_bytes = sum(len(shards.read(i)) for i in range(len(shards))) / len(shards)
        found["workload"][size] = {
            "source": "synthetic", "images": len(shards), "tars": len(list(shards.root.glob("train-*.tar"))),
            "bytes_an_image": round(jpeg_bytes), "page_cache": "warm",
        }  # fmt: skip
        sources, skipped = ways(shards, batch, threads, ranks)
        windows = {name: Window(source, seconds, ranks.device) for name, source in sources.items()}
        before = found["rows"]
        found["failures"] += [entry | {"images": size} for entry in skipped]

        def kept(size=size, windows=windows, before=before) -> None:
            found["rows"] = before + [
                _row(size, name, window, windows[BASE]) for name, window in windows.items() if window.rates
            ]
            keep(found)

        interleave(windows, rounds, kept)
        for window in windows.values():
            window.source.close()
    return found


def _row(size: str, name: str, window: Window, base: Window) -> dict:
    rates = summary(window.rates)
    return {
        "key": f"{size} {name}", "size": size, "way": name,
        "metrics": {
            "images_per_second": rates,
            "batch_ms": window.batch_ms,
            "times_base": rates["median"] / summary(base.rates)["median"],
        },
    }  # fmt: skip
