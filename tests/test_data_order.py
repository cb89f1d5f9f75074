"""The order against an independent Philox, and what a change of ranks or a stop must not change."""

import numpy as np
import pytest

from mscgan.data.order import Order, permutation, slice_of, uniforms

MASK = (1 << 64) - 1


def philox(key: tuple[int, int], counter: list[int]) -> list[int]:
    """Philox 4x64 with 10 rounds as Salmon et al. 2011 print it (Random123), in plain Python."""
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        p0, p1 = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [(p1 >> 64) ^ c[1] ^ k0, p1 & MASK, (p0 >> 64) ^ c[3] ^ k1, p0 & MASK]
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & MASK, (k1 + 0xBB67AE8584CAA73B) & MASK
    return c


def raw(seed: int, epoch: int, purpose: int, count: int) -> list[int]:
    blocks = (philox((seed, epoch), [block, 0, 0, purpose]) for block in range(1, count // 4 + 2))  # NumPy steps first
    return [number for block in blocks for number in block][:count]


def test_the_reference_philox_gives_the_published_answers():
    assert philox((0, 0), [0, 0, 0, 0])[:2] == [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC]  # Random123's kat_vectors


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (7, 3), (2**63, 1)])
def test_permutation_and_uniforms_follow_from_philox_alone(seed, epoch):
    numbers = raw(seed, epoch, 0, 50)
    assert permutation(seed, epoch, 50).tolist() == sorted(range(50), key=numbers.__getitem__)
    assert uniforms(seed, epoch, 50).tolist() == [(number >> 11) / 2**53 for number in raw(seed, epoch, 1, 50)]


def test_seeds_and_epochs_give_different_orders_and_even_uniforms():
    orders = {tuple(permutation(seed, epoch, 100)) for seed in range(4) for epoch in range(4)}
    draws = uniforms(1, 1, 100_000)
    assert len(orders) == 16
    assert 0 <= draws.min() and draws.max() < 1 and abs(draws.mean() - 0.5) < 0.005


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_the_batches_of_all_ranks_together_are_the_same_stream(world):
    pairs, epochs = 30, 4
    whole, shared = Order(pairs, seed=5), Order(pairs, seed=5)
    rows, draws = whole.at(np.arange(pairs * epochs))
    batch = 12 // world
    for position in range(0, pairs * epochs, 12):
        parts = [shared.at(slice_of(position, batch, rank, world)) for rank in range(world)]
        assert np.array_equal(np.concatenate([part[0] for part in parts]), rows[position : position + 12])
        assert np.array_equal(np.concatenate([part[1] for part in parts]), draws[position : position + 12])


def test_each_pair_comes_once_in_each_epoch():
    rows, _ = Order(37, seed=2).at(np.arange(37 * 5))
    assert all(sorted(epoch) == list(range(37)) for epoch in rows.reshape(5, 37).tolist())


def test_resume_at_any_position_goes_on_with_the_same_pairs():
    rows, draws = Order(11, seed=9).at(np.arange(60))
    for position in range(55):
        again = Order(11, seed=9).at(np.arange(position, 60))
        assert np.array_equal(again[0], rows[position:]) and np.array_equal(again[1], draws[position:])


def test_a_batch_longer_than_an_epoch_and_steps_back_are_served():
    order = Order(3, seed=0)
    rows, _ = order.at(np.arange(16))
    assert all(sorted(rows[start : start + 3]) == [0, 1, 2] for start in (0, 3, 6, 9, 12))
    assert np.array_equal(order.at(np.arange(2))[0], rows[:2])


def test_a_full_sized_epoch_is_a_permutation():
    order = permutation(0, 0, 439_420)  # PG2's number of training pairs of Market-1501
    assert order.dtype == np.int32 and np.array_equal(np.sort(order), np.arange(439_420))
