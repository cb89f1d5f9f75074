"""How a drawn person looks in all views: skin, hair, clothes with their patterns, shoes, and the place behind.

Colours are float RGB in [0, 255]. A material paints a point of cloth from its place (u, v): v along the part from its
upper end, u across it from its middle, both in units of the body's height.
"""

import colorsys
from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]

SKIN = [(255, 224, 196), (241, 194, 155), (224, 172, 125), (198, 134, 86), (141, 85, 51), (92, 56, 36)]
HAIR = [(28, 22, 20), (59, 38, 24), (101, 66, 33), (161, 112, 58), (220, 184, 110), (150, 62, 30), (150, 150, 152)]
HAIRCUTS = ["short", "short", "long", "long", "bun", "cap", "bald"]
# the last is for shirts alone
PATTERNS = ["plain", "plain", "stripes", "pinstripes", "checks", "dots", "print", "blocks"]
BOTTOMS = ["trousers", "trousers", "shorts", "skirt", "long skirt"]
PLACES = ["plain", "gradient", "bricks", "panels", "fence", "leaves"]


@dataclass(frozen=True)
class Material:
    pattern: str
    first: Colour
    second: Colour
    period: float  # of the pattern, body heights

    def paint(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """(h, w) places -> (h, w, 3) float32 colours, (1, 1, 3) where they are all the same."""
        a, b = u / self.period, v / self.period
        if self.pattern == "stripes":
            mix = b % 1 < 0.5
        elif self.pattern == "pinstripes":
            mix = (a + 0.2) % 1 < 0.4
        elif self.pattern == "checks":
            mix = ((a % 1 < 0.5) + 0.0 + (b % 1 < 0.5)) / 2
        elif self.pattern == "dots":
            row = np.floor(b)
            mix = ((a + 0.5 * (row % 2)) % 1 - 0.5) ** 2 + (b % 1 - 0.5) ** 2 < 0.09
        elif self.pattern == "print":  # blotches
            mix = np.sin(6.1 * a + 2 * np.sin(4.3 * b)) + np.sin(5.3 * b + 2 * np.sin(3.7 * a)) > 0.6
        elif self.pattern == "blocks":  # another colour from the chest down
            mix = b > 1.6
        else:
            return np.float32([[self.first]])
        mix = np.asarray(mix, np.float32)[..., None]
        return (1 - mix) * np.float32(self.first) + mix * np.float32(self.second)


@dataclass(frozen=True)
class Look:
    skin: Material
    hair: Material
    haircut: str
    hat: Material
    top: Material
    long_sleeves: bool
    emblem: Colour | None
    bottom: Material
    bottoms: str
    shoes: Material
    height: float  # of the body, 1 is average
    build: float  # width of the body, 1 is average
    place: str
    wall: Colour
    floor: Colour
    horizon: float  # share of the picture above the floor
    phase: float  # of the place's texture


def random_look(rng: np.random.Generator) -> Look:
    """Someone, in clothes that mostly differ from the place behind them."""
    skin = _near(rng, SKIN[rng.integers(len(SKIN))])
    top = _cloth(rng)
    bottoms = str(rng.choice(BOTTOMS))
    bottom = top if bottoms.endswith("skirt") and rng.random() < 0.35 else _cloth(rng, plain=0.75)  # a dress
    wall = _colour(rng, (0.0, 0.22), (0.45, 0.85))
    return Look(
        skin=_plain(skin),
        hair=_plain(_near(rng, HAIR[rng.integers(len(HAIR))])),
        haircut=str(rng.choice(HAIRCUTS)),
        hat=_plain(_colour(rng, (0.4, 0.9), (0.3, 0.9))),
        top=top,
        long_sleeves=bool(rng.random() < 0.5),
        emblem=_colour(rng, (0.0, 0.9), (0.2, 1.0)) if top.pattern == "plain" and rng.random() < 0.4 else None,
        bottom=bottom,
        bottoms=bottoms,
        shoes=_plain(_colour(rng, (0.0, 0.7), (0.08, 0.95))),
        height=rng.uniform(0.94, 1.05),
        build=rng.uniform(0.9, 1.2),
        place=str(rng.choice(PLACES)),
        wall=wall,
        floor=_near(rng, tuple(np.float32(wall) * rng.uniform(0.6, 0.85))),
        horizon=rng.uniform(0.66, 0.8),
        phase=rng.uniform(0, 1),
    )


def _cloth(rng: np.random.Generator, plain: float = 0.0) -> Material:
    pattern = "plain" if rng.random() < plain else str(rng.choice(PATTERNS[:-1] if plain else PATTERNS))
    if rng.random() < 0.25:  # black, grey, white
        first = (rng.uniform(20, 245),) * 3
    else:
        first = _colour(rng, (0.45, 0.95), (0.3, 0.95))
    second = _colour(rng, (0.0, 0.9), (0.15, 1.0))
    while np.abs(np.subtract(first, second)).sum() < 150:  # else the pattern could hardly be seen
        second = _colour(rng, (0.0, 0.9), (0.1, 1.0))
    return Material(pattern, first, second, rng.uniform(0.055, 0.1))


def _plain(colour: Colour) -> Material:
    return Material("plain", colour, colour, 1.0)


def _colour(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return (255 * red, 255 * green, 255 * blue)


def _near(rng: np.random.Generator, colour: Colour) -> Colour:
    return tuple(float(np.clip(c * s, 0, 255)) for c, s in zip(colour, rng.uniform(0.96, 1.04, 3), strict=True))
