"""How the field names its images, and whom a name shows.

Market-1501: `0002_c1s1_000451_03.jpg` (person, camera and sequence, frame, box). DeepFashion: flat, as its public
keypoint files have it, `fashionWOMENDressesid0000000202_1front.jpg`, or in the original tree,
`WOMEN/Dresses/id_00000002/02_1_front.jpg`.
"""

import re
import unicodedata

EXTENSION = re.compile(r"\.(jpe?g|png)$", re.IGNORECASE)
_EXTENSIONS = re.compile(r"(\.(jpe?g|png))+$", re.IGNORECASE)  # Market-1501 has a 1488_c1s6_023021_02.jpg.jpg
TREE = re.compile(r"(?:.*/)?(MEN|WOMEN)/([^/]+)/id_(\d{8})/(\d{2})_(\d+)_(\w+\.(?:jpg|png))")
# category, item and colour: a person in an outfit. Ten digits must follow "id", which is also found in "2side.jpg".
OUTFIT = re.compile(r"(.*id\d{10})_")


def flat(name: str) -> str:
    """The flat name of a path in DeepFashion's tree; any other name as it is."""
    found = TREE.fullmatch(name)
    if not found:
        return name
    gender, category, item, colour, number, view = found.groups()
    return f"fashion{gender}{category}id{item}{colour}_{number}{view}"


def key(name: str) -> str:
    """What names of one image have in common, whatever the extensions: `a.b.JPG`, `a.b.jpg.png` -> `a.b`.

    Unicode is composed, since some file systems store an umlaut as two characters.
    """
    return unicodedata.normalize("NFC", _EXTENSIONS.sub("", flat(name)))


def person(name: str) -> str:
    """Whose image it is: DeepFashion's category, item and colour; else what stands before the first `_`, as in
    Market-1501, or the whole name without its extension."""
    last = key(name).rsplit("/", 1)[-1]
    found = OUTFIT.match(last)
    return found[1] if found else last.split("_")[0]
