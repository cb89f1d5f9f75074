"""The tables of a split, .npy files as numpy.save writes them: its pairs, and what each image's KEY.json says.

The second is there so that a rank reads one file and not a record an image: for DeepFashion's 52,712 images that takes
a twentieth of the time on a local disk, and a shared one answers as many requests less.

A header of such a file is a Python literal, which numpy evaluates, and it may claim any size. Here it has to be the one
text that fits, so nothing is evaluated and nothing is set aside for what is not there.
"""

import re

import numpy as np

JOINTS = 18  # OpenPose's COCO joints
LONGEST = 4096  # bytes of a name, which may be a path
_HEADER = rb"\x93NUMPY\x01\x00(..)\{'descr': %s, 'fortran_order': False, 'shape': \((\d{1,10}),%s\), \} *\n"
_PAIRS = re.compile(_HEADER % (rb"'<i4'", rb" 2"), re.DOTALL)
_TEXT = rb"'\|S(\d{1,4})'"
_IMAGES = re.compile(
    _HEADER % (rb"\[\('keypoints', '<f4', \(18, 2\)\), \('name', %s\), \('person', %s\)\]" % (_TEXT, _TEXT), b""),
    re.DOTALL,
)


def pair_table(data: bytes, rows: int) -> np.ndarray:
    """(rows, 2) int32, read only: source image, target image. `data` is the file's content.

    Raises:
        ValueError: it is something else, or has another number of rows.
    """
    header = _PAIRS.match(data)
    if header is None or int.from_bytes(header[1], "little") != header.end() - 10:
        raise ValueError(f"begins with {data[:90]!r}, expected numpy's int32 ({rows}, 2)")
    found, left = int(header[2]), len(data) - header.end()
    if found != rows or left != 8 * rows:
        raise ValueError(f"holds int32 ({found}, 2) in {left} bytes, expected ({rows}, 2) in {8 * rows}")
    return np.frombuffer(data, "<i4", offset=header.end()).reshape(rows, 2)


def image_record(name: int = LONGEST, person: int = LONGEST) -> np.dtype:
    """What the table of images has an image. name, person: bytes of the longest, in UTF-8."""
    return np.dtype([("keypoints", "<f4", (JOINTS, 2)), ("name", f"S{name}"), ("person", f"S{person}")])


def image_table(data: bytes, rows: int) -> tuple[np.ndarray, list[str], list[str]]:
    """keypoints (rows, 18, 2) float32, names and persons, in the order of the tars. `data` is the file's content.

    Raises:
        ValueError: it is something else, or has another number of rows.
    """
    header = _IMAGES.match(data)
    if header is None or int.from_bytes(header[1], "little") != header.end() - 10:
        raise ValueError(f"begins with {data[:90]!r}, expected numpy's {image_record().descr}")
    lengths, found = (int(header[2]), int(header[3])), int(header[4])
    record, left = image_record(*lengths), len(data) - header.end()
    if max(lengths) > LONGEST or found != rows or left != record.itemsize * rows:
        raise ValueError(
            f"holds {found} records of {record.itemsize} bytes in {left} bytes, expected {rows} with names of at most "
            f"{LONGEST}"
        )
    table = np.frombuffer(data, record, offset=header.end())
    keypoints = table["keypoints"].astype(np.float32)
    if not np.isfinite(keypoints).all():
        raise ValueError("holds keypoints that are not finite")
    names, persons = ([text.decode() for text in table[field].tolist()] for field in ("name", "person"))
    return keypoints, names, persons
