"""A look at a JPEG's header before DALI sees it.

DALI 2.4 may crash the process (a use after free, seen with two or more threads) when its parser refuses an image, while
a failure behind the header is an ordinary error. So no image reaches it whose segments do not lead from the start
marker to a frame of a kind it decodes and on to the scan (ITU-T T.81, annex B).
"""

_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended sequential, progressive (T.81, table B.1)
_OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)  # lossless, arithmetic, differential
_NO_SEGMENT = (0x00, 0x01, *range(0xD0, 0xDA))  # markers that may not stand between the start and the scan
_SCAN, _APP1 = 0xDA, 0xE1


def size(data: bytes) -> tuple[int, int]:
    """(height, width) in pixels, of a header that is whole.

    Raises:
        ValueError: not a JPEG, a broken header, or a kind of JPEG that is not decoded.
    """
    if data[:2] != b"\xff\xd8":
        raise ValueError("not a JPEG" if data else "empty")
    found, at = None, 2
    try:
        while True:
            if data[at] != 0xFF:
                raise ValueError(f"broken JPEG header at byte {at}")
            while data[at] == 0xFF:  # any number of fill bytes
                at += 1
            marker, length = data[at], int.from_bytes(data[at + 1 : at + 3], "big")
            if marker in _NO_SEGMENT or length < 2 or at + 1 + length > len(data):
                raise ValueError(f"broken JPEG header at byte {at}")
            if marker == _SCAN:
                break
            if marker in _OTHER_FRAMES:
                raise ValueError("a lossless, arithmetic or hierarchical JPEG")
            if marker == _APP1 and length < 8:
                raise ValueError(f"broken EXIF segment at byte {at}")
            if marker in _FRAMES:
                precision, components = data[at + 3], data[at + 8]
                if precision != 8 or components not in (1, 3, 4) or length != 8 + 3 * components:
                    raise ValueError(f"a JPEG of {components} components with {precision} bits")
                found = int.from_bytes(data[at + 4 : at + 6], "big"), int.from_bytes(data[at + 6 : at + 8], "big")
            at += 1 + length
    except IndexError:
        raise ValueError("the JPEG header is cut off") from None
    if found is None:
        raise ValueError("a JPEG without a frame")
    return found
