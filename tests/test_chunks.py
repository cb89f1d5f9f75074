"""Chunks of pairs: their order over processes. The rest is seen in test_evaluate.py."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mscgan import chunks
from mscgan.scoring import Batch


def test_batches_come_back_in_their_order_however_many_wait():
    def batch(number: int) -> Batch:
        image = np.full((1, 8, 8, 3), number, np.uint8)
        return Batch(image, {}, {"made": np.zeros_like(image)})

    batches = ((batch(number), {"number": np.array([number])}) for number in range(20))
    with ThreadPoolExecutor(2) as pool:
        found = list(chunks._scored(batches, ["l1"], pool, 2))
    assert [int(part["number"][0]) for part in found] == list(range(20))
    assert [round(part["made/l1"][0] * 127.5) for part in found] == list(range(20))
