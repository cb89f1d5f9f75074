"""The table of pairs of a split: a .npy file of int32, as numpy.save writes it.

Its header is a Python literal, which numpy evaluates, and it may claim any size. Here it has to be the one text that
fits, so nothing is evaluated and nothing is set aside for what is not there.
"""

import re

import numpy as np

_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(..)\{'descr': '<i4', 'fortran_order': False, 'shape': \((\d{1,10}), 2\), \} *\n", re.DOTALL
)


def pair_table(data: bytes, rows: int) -> np.ndarray:
    """(rows, 2) int32, read only: source image, target image. `data` is the file's content.

    Raises:
        ValueError: it is something else, or has another number of rows.
    """
    header = _HEADER.match(data)
    if header is None or int.from_bytes(header[1], "little") != header.end() - 10:
        raise ValueError(f"begins with {data[:90]!r}, expected numpy's int32 ({rows}, 2)")
    found, left = int(header[2]), len(data) - header.end()
    if found != rows or left != 8 * rows:
        raise ValueError(f"holds int32 ({found}, 2) in {left} bytes, expected ({rows}, 2) in {8 * rows}")
    return np.frombuffer(data, "<i4", offset=header.end()).reshape(rows, 2)
