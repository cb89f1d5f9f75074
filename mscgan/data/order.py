"""The order in which training sees the pairs: a pure function of (seed, epoch), the same for any number of ranks.

The stream is the epochs joined end to end; a position is the number of pairs before it, over all ranks. Each epoch is
one permutation of all pairs. Both the permutation and the uniforms come from the raw 64-bit output of NumPy's Philox
(key = seed and epoch, counter = purpose), which NumPy keeps stable over its versions, unlike `Generator.permutation`
(NumPy's compatibility policy, NEP 19): the permutation is the stable argsort of that output.
"""

import numpy as np

_PERMUTATION, _UNIFORMS = 0, 1  # purposes: the counter's highest word, so that their numbers never overlap


def permutation(seed: int, epoch: int, pairs: int) -> np.ndarray:
    """(pairs,) int32: the rows of the pair table in the order of this epoch."""
    return np.argsort(_raw(seed, epoch, _PERMUTATION, pairs), kind="stable").astype(np.int32)


def uniforms(seed: int, epoch: int, pairs: int) -> np.ndarray:
    """(pairs,) float64 in [0, 1): a number for each place in this epoch, which decides on its flip."""
    return (_raw(seed, epoch, _UNIFORMS, pairs) >> np.uint64(11)) * 2.0**-53


def slice_of(position: int, batch: int, rank: int, world: int) -> np.ndarray:
    """(batch,) int64: the positions that `rank` takes of the global batch of `batch * world` pairs at `position`."""
    assert 0 <= rank < world, f"rank {rank} of {world}"
    return position + rank * batch + np.arange(batch, dtype=np.int64)


class Order:
    """The stream of pairs of one seed. Remembers the two epochs used last, which a batch may straddle."""

    def __init__(self, pairs: int, seed: int):
        assert pairs > 0, "a stream needs at least one pair"
        self.pairs, self.seed = pairs, seed
        self._epochs: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What stands at (N,) int64 positions of the stream: (N,) int64 rows of the pair table, (N,) uniforms."""
        epochs, places = np.divmod(positions, self.pairs)
        rows, draws = np.empty(len(positions), np.int64), np.empty(len(positions))
        for epoch in np.unique(epochs):
            here = epochs == epoch
            order, uniform = self._epoch(int(epoch))
            rows[here], draws[here] = order[places[here]], uniform[places[here]]
        return rows, draws

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        if epoch not in self._epochs:
            while len(self._epochs) > 1:
                del self._epochs[min(self._epochs)]
            args = self.seed, epoch, self.pairs
            self._epochs[epoch] = permutation(*args), uniforms(*args)
        return self._epochs[epoch]


def _raw(seed: int, epoch: int, purpose: int, count: int) -> np.ndarray:
    key, counter = np.array([seed, epoch], np.uint64), np.array([0, 0, 0, purpose], np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(count)
