"""Batches of pairs on the training device, as a pure function of the position in the global order.

Rank r of `world` takes positions p + r*batch ... p + (r+1)*batch of each global batch at p. A thread reads ahead of
training and keeps a batch ready, DALI decodes more on its own threads (data/dali.py). What is read depends on the
position alone, so a checkpoint holds nothing else of the loader.

Images that cannot be decoded are replaced by this rule: a position whose pair holds such an image gets the pair and the
flip of the next position whose pair holds none. That depends on the order and on which images are bad, not on when a
rank met them, on the number of ranks or on where a run was resumed; every other position keeps its pair.
"""

import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from mscgan.data import dali, jpeg
from mscgan.data.batch import Batch
from mscgan.data.order import Order, slice_of
from mscgan.data.shards import ShardSet
from mscgan.errors import UserError


@dataclass(frozen=True)
class _Fed:
    """A batch as DALI was given it: N rows of the pair table, N flips, 2N numbers of images (sources, then targets)."""

    position: int
    rows: np.ndarray
    flips: np.ndarray
    images: np.ndarray
    replaced: int


class Loader(Iterator[Batch]):
    """An endless iterator of `Batch`, each of `batch` pairs for this rank.

    Args:
        shards: one split.
        batch: pairs a call on this rank; a call consumes batch * world positions of the order.
        rank, world: this process and the number of processes.
        seed: of the order and the flips.
        flip: probability of mirroring a pair.
        device: where the tensors go.
        decode: cpu | mixed | auto (data/dali.py, `choose`).
        threads: DALI's CPU threads.
        max_corrupt: undecodable images that this rank works around; one more is an error.
        position: global pairs consumed before the first batch.

    Attributes:
        position: global pairs consumed, after the batches handed out so far. A loader made with it goes on from there.
        corrupt: pairs replaced in the batches handed out so far, on this rank.

    Raises:
        UserError: no pairs, more than max_corrupt bad images, or a GPU decoder without a GPU.
    """

    def __init__(
        self,
        shards: ShardSet,
        batch: int,
        rank: int,
        world: int,
        seed: int,
        flip: float,
        device: torch.device | str,
        decode: str = "auto",
        threads: int = 2,
        max_corrupt: int = 16,
        position: int = 0,
    ):
        if not len(shards.pairs):
            raise UserError(f"{shards.root} has no pairs to train on in this split; build it with two images a person")
        self.shards, self.batch, self.rank, self.world, self.flip = shards, batch, rank, world, flip
        self.device, self.threads, self.max_corrupt = torch.device(device), threads, max_corrupt
        if self.device == torch.device("cuda"):
            self.device = torch.device("cuda", torch.cuda.current_device())
        self.decode = dali.choose(decode, self.device, rank)
        self.position, self.corrupt = position, 0
        self._order = Order(len(shards.pairs), seed)
        self._checked = np.zeros(len(shards), bool)  # images whose structure has been looked at
        self._bad = np.zeros(len(shards), bool)  # images that cannot be decoded
        self._start(position)
        self._reader = ThreadPoolExecutor(1, "loader", initializer=self._enter_thread)
        self._coming = self._reader.submit(self._read, self._stream())

    def __next__(self) -> Batch:
        decoded, fed = self._coming.result()
        self._coming = self._reader.submit(self._read, self._stream())
        images = torch.from_dlpack(decoded)  # no copy; valid as long as it is held
        self.position += self.batch * self.world
        self.corrupt += fed.replaced
        keypoints = self._to_device(self.shards.keypoints[fed.images])
        n = self.batch
        return Batch(
            x=images[:n],
            y=images[n:],
            x_keypoints=keypoints[:n],
            y_keypoints=keypoints[n:],
            flip=self._to_device(fed.flips),
            pair=torch.from_numpy(fed.rows),
        )

    def _enter_thread(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # else this thread would use the machine's first GPU

    def _stream(self) -> torch.cuda.Stream | None:
        """The stream that will use the batch: DALI then need not wait for the GPU, and keeps memory while in use."""
        return torch.cuda.current_stream(self.device) if self.device.type == "cuda" else None

    def _start(self, position: int) -> None:
        """Makes a pipeline whose first batch begins at `position`."""
        self._ahead = position  # where the next batch to feed begins
        self._fed: deque[_Fed] = deque()  # fed and not yet handed out, oldest first
        self._pipeline = dali.build(self._feed, 2 * self.batch, self.threads, self.device, self.decode)

    def _read(self, stream: torch.cuda.Stream | None) -> tuple[object, _Fed]:
        """The next batch of the pipeline, (2N, H, W, 3) uint8, and what it was made of. Runs in the reading thread."""
        while True:
            try:
                (images,) = self._pipeline.run(stream)
                return images.as_tensor(), self._fed.popleft()
            except RuntimeError as error:
                failed = self._fed[0]
                self._find_bad(failed.images, error)
                self._start(failed.position)

    def _feed(self) -> list[np.ndarray]:
        """DALI's source: the 2N JPEGs of the next batch."""
        rows, draws = self._order.at(slice_of(self._ahead, self.batch, self.rank, self.world))
        wrong = self._holds_bad(rows)
        for n in np.flatnonzero(wrong):
            rows[n], draws[n] = self._next_good(self._ahead + self.rank * self.batch + int(n))
        images = self.shards.pairs[rows].T.ravel()
        self._fed.append(_Fed(self._ahead, rows, draws < self.flip, images, int(wrong.sum())))
        self._ahead += self.batch * self.world
        return [np.frombuffer(self.shards.read(i), np.uint8) for i in images.tolist()]

    def _next_good(self, position: int) -> tuple[int, float]:
        """Row and draw (uniform) at the first position after `position` whose pair holds no bad image."""
        for after in range(position + 1, position + 2 * len(self.shards.pairs)):  # all of the next epoch, at least
            row, draw = self._order.at(np.array([after]))
            if not self._holds_bad(row).any():
                return int(row[0]), float(draw[0])
        raise self._too_many("no pair without one is left")

    def _holds_bad(self, rows: np.ndarray) -> np.ndarray:
        """(N,) bool: which pairs hold an image known to be bad, after a look at those not seen before."""
        images = self.shards.pairs[rows]
        for i in np.unique(images[~self._checked[images]]).tolist():
            data = self.shards.read(i)
            try:
                jpeg.check(data, self.shards.height, self.shards.width)
            except ValueError as error:
                self._note_bad(i, str(error))
            self._checked[i] = True
        return self._bad[images].any(axis=1)

    def _find_bad(self, images: np.ndarray, error: RuntimeError) -> None:
        """Notes which images of a batch that DALI refused are to blame; re-raises its error if none is."""
        suspects = np.unique(images).tolist()
        blamed = dali.refused([self.shards.read(i) for i in suspects], self.device, self.decode)
        if not blamed:
            raise error
        for number in blamed:
            self._note_bad(suspects[number], "broken image data")

    def _note_bad(self, i: int, why: str) -> None:
        self._bad[i] = True
        count = int(self._bad.sum())
        print(
            f"[rank {self.rank}] cannot decode {self.shards.locate(i)}: {why}; its pairs are replaced by the next ones "
            f"(bad image {count}, at most {self.max_corrupt})",
            file=sys.stderr,
            flush=True,
        )
        if count > self.max_corrupt:
            raise self._too_many(f"more than data.max_corrupt={self.max_corrupt}")

    def _too_many(self, why: str) -> UserError:
        names = ", ".join(self.shards.locate(i) for i in np.flatnonzero(self._bad).tolist())
        return UserError(
            f"{int(self._bad.sum())} images cannot be decoded ({why}): {names}; "
            f"see `python shards/verify.py {self.shards.root}` and build the folder again"
        )

    def _to_device(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor if self.device.type == "cpu" else tensor.pin_memory().to(self.device, non_blocking=True)
