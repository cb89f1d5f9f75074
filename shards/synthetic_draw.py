"""Draws a posed body in its clothes with Pillow: each part is the hull of a few discs, painted back to front.

Lengths are in units of the body's height until `_Canvas` turns them to pixels of a picture drawn several times too
large, which is then reduced.
"""

import numpy as np
from PIL import Image, ImageDraw

from shards import synthetic_body as body
from shards.synthetic_look import Colour, Look, Material
from shards.synthetic_place import place

DIRECTIONS = np.stack([np.cos(np.arange(32) * np.pi / 16), np.sin(np.arange(32) * np.pi / 16)], axis=1)
SKIRT_END = {"skirt": 0.75, "long skirt": 1.35}  # of the way from hip to knee to ankle


class _Canvas:
    """A picture in the making. scale: pixels a body height; origin: pixel (x, y) of the point on the ground."""

    def __init__(self, image: Image.Image, scale: float, origin: tuple[float, float]):
        self.image, self.scale, self.origin = image, scale, np.asarray(origin)

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """(n, 2 or 3) points -> (n, 2) pixels, y downwards."""
        return self.origin + self.scale * points[:, :2] * [1, -1]

    def part(self, discs: list, material: Material, axis: tuple | None = None, light: float = 1.0) -> None:
        """Paints the hull of discs [(centre, radius)]; the cloth runs along axis (upper, lower point) if given."""
        centres = self.pixels(np.array([np.asarray(c)[:2] for c, _ in discs]))
        radii = np.array([r for _, r in discs]) * self.scale
        # the hull's corners: in each direction the point of the disc that reaches farthest
        farthest = (DIRECTIONS @ centres.T + radii).argmax(axis=1)
        rim = centres[farthest] + radii[farthest, None] * DIRECTIONS
        left, top = np.floor(np.maximum(rim.min(0), 0)).astype(int)
        right, bottom = np.ceil(np.minimum(rim.max(0), self.image.size)).astype(int) + 1
        if right <= left + 1 or bottom <= top + 1:
            return
        mask = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(mask).polygon((rim - [left, top]).ravel().tolist(), fill=255)
        upper, lower = self.pixels(np.array([np.asarray(p)[:2] for p in axis])) if axis else (centres[0], centres[-1])
        along = lower - upper
        along = along / np.hypot(*along) if np.hypot(*along) > 1 else np.array([0.0, 1.0])
        x = (np.arange(left, right, dtype=np.float32) - np.float32(upper[0])) / np.float32(self.scale)
        y = (np.arange(top, bottom, dtype=np.float32) - np.float32(upper[1]))[:, None] / np.float32(self.scale)
        u, v = x * np.float32(along[1]) - y * np.float32(along[0]), x * np.float32(along[0]) + y * np.float32(along[1])
        breadth = (radii.max() + np.abs((centres - upper) @ [along[1], -along[0]]).max()) / self.scale
        across = np.minimum(np.abs(u / np.float32(breadth) + 0.2), 1.2)  # lit from the left
        shade = np.float32(light) * (1.04 - 0.26 * across * across)
        painted = np.minimum(material.paint(u, v) * shade[..., None], 255).astype(np.uint8)
        self.image.paste(Image.fromarray(painted), (left, top), mask)

    def dot(self, centre: np.ndarray, radius: float, colour: Colour, squash: float = 1.0) -> None:
        """A small ellipse, squash: its width by its height."""
        (x, y), r = self.pixels(np.asarray(centre)[None])[0], radius * self.scale
        box = (x - r * squash, y - r, x + r * squash, y + r)
        ImageDraw.Draw(self.image).ellipse(box, fill=tuple(int(c) for c in colour))


def draw(
    look: Look,
    view: np.ndarray,
    seat: bool,
    size: tuple[int, int],
    scale: float,
    origin: tuple[float, float],
    over: int,
) -> Image.Image:
    """The person before the place: RGB picture of size (width, height).

    view: (24, 3) points as `synthetic_body.turned` gives them. scale, origin: as in _Canvas, in pixels of the result.
    over: how many times too large it is drawn.
    """
    width, height = size
    canvas = _Canvas(
        place(look, width * over, height * over).copy(), scale * over, (origin[0] * over, origin[1] * over)
    )
    _shadow(canvas, view)
    parts = _legs(look, view) + _trunk(look, view) + _arms(look, view)
    parts += _head(canvas, look, view)
    if seat:
        parts.append((-1.0, lambda: _stool(canvas, view)))
    for _, part in sorted(parts, key=lambda p: p[0]):
        part() if callable(part) else canvas.part(*part)
    return canvas.image.resize(size, Image.Resampling.BOX)


# Parts below are (depth, part): depth towards the camera, part the arguments of _Canvas.part or a function to call.


def _legs(look: Look, view: np.ndarray) -> list:
    parts = []
    b = look.build
    nearer = max(view[body.R_HIP, 2], view[body.L_HIP, 2])
    for hip, knee, ankle, toe in (
        (body.R_HIP, body.R_KNEE, body.R_ANKLE, body.R_TOE),
        (body.L_HIP, body.L_KNEE, body.L_ANKLE, body.L_TOE),
    ):
        light = 0.86 if view[hip, 2] < nearer - 0.03 else 1.0
        hip, knee, ankle, toe = view[hip], view[knee], view[ankle], view[toe]
        thigh = look.bottom if look.bottoms in ("trousers", "shorts") else look.skin
        shin = look.bottom if look.bottoms == "trousers" else look.skin
        wide = 1.12 if look.bottoms == "trousers" else 1.0
        hem = knee if look.bottoms != "shorts" else hip + 0.8 * (knee - hip)
        depth = (hip[2] + knee[2]) / 2 - 0.07  # a shirt hangs over the trousers, but a lap comes before it
        if look.bottoms == "shorts":
            parts.append((depth - 0.001, ([(hip, 0.058 * b), (knee, 0.038 * b)], look.skin, None, light)))
        parts.append((depth, ([(hip, 0.062 * b), (hem, 0.046 * b * wide)], thigh, None, light)))
        low = (knee[2] + ankle[2]) / 2 - 0.071
        parts.append((low, ([(knee, 0.038 * b * wide), (ankle, 0.024 * b * wide)], shin, None, light)))
        parts.append(
            (max(low, depth) + 0.001, ([(ankle - [0, 0.008, 0], 0.026), (toe, 0.017)], look.shoes, None, light))
        )
    if look.bottoms in SKIRT_END:
        parts.append((max(depth for depth, _ in parts) - 0.0005, _skirt(look, view)))
    return parts


def _skirt(look: Look, view: np.ndarray) -> tuple:
    end = SKIRT_END[look.bottoms]
    hem = []
    for hip, knee, ankle in ((body.R_HIP, body.R_KNEE, body.R_ANKLE), (body.L_HIP, body.L_KNEE, body.L_ANKLE)):
        upper, lower = min(end, 1.0), max(end - 1.0, 0.0)
        hem.append(
            (view[hip] + upper * (view[knee] - view[hip]) + lower * (view[ankle] - view[knee]), 0.058 * look.build)
        )
    waist = [
        (view[body.R_HIP] + [0, 0.02, 0], 0.055 * look.build),
        (view[body.L_HIP] + [0, 0.02, 0], 0.055 * look.build),
    ]
    middle = (view[body.R_HIP] + view[body.L_HIP]) / 2
    return (waist + hem, look.bottom, (middle + [0, 0.05, 0], (hem[0][0] + hem[1][0]) / 2))


def _trunk(look: Look, view: np.ndarray) -> list:
    b = look.build
    depth = view[body.SPINE, 2]
    middle = (view[body.R_HIP] + view[body.L_HIP]) / 2
    pelvis = [(view[body.R_HIP], 0.06 * b), (view[body.L_HIP], 0.06 * b), (middle + [0, 0.035, 0], 0.062 * b)]
    drop = np.array([0, -0.014, 0])
    chest = [(0.88 * view[s] + 0.12 * view[body.NECK] + drop, 0.043 * b) for s in (body.R_SHOULDER, body.L_SHOULDER)]
    chest.append((view[body.NECK] + 2 * drop, 0.056 * b))
    waist_width = 0.72 * (view[body.R_HIP] - middle)
    waist = [(0.3 * view[body.SPINE] + 0.7 * middle + s * waist_width, 0.045 * b) for s in (-1, 1)]
    parts = [
        (depth - 0.004, (pelvis, look.bottom, (view[body.SPINE], middle))),
        (depth, (chest + waist, look.top, (view[body.NECK], middle))),
        (depth + 0.003, ([(view[body.NECK] + [0, 0.012, 0], 0.028), (view[body.HEAD], 0.026)], look.skin)),
    ]
    facing = _facing(view)
    if look.emblem and facing[2] > 0.35:
        chest_middle = 0.62 * view[body.NECK] + 0.38 * view[body.SPINE] + [0.05 * facing[0], 0, 0]
        emblem = Material("plain", look.emblem, look.emblem, 1.0)
        parts.append((depth + 0.001, ([(chest_middle, 0.034), (chest_middle - [0, 0.02, 0], 0.026)], emblem)))
    return parts


def _arms(look: Look, view: np.ndarray) -> list:
    parts = []
    b = look.build
    for shoulder, elbow, wrist, hand in (
        (body.R_SHOULDER, body.R_ELBOW, body.R_WRIST, body.R_HAND),
        (body.L_SHOULDER, body.L_ELBOW, body.L_WRIST, body.L_HAND),
    ):
        shoulder, elbow, wrist, hand = view[shoulder] - [0, 0.01, 0], view[elbow], view[wrist], view[hand]
        light = 0.86 if shoulder[2] < view[body.NECK, 2] - 0.03 else 0.95
        sleeve = look.top if look.long_sleeves else look.skin
        depth = (shoulder[2] + elbow[2]) / 2 + 0.012
        low = (elbow[2] + wrist[2]) / 2 + 0.013
        parts.append((low - 0.001, ([(wrist, 0.019), (hand, 0.021)], look.skin, None, light)))
        parts.append((low, ([(elbow, 0.029 * b), (wrist, 0.021 * b)], sleeve, None, light)))
        if not look.long_sleeves:
            parts.append((depth - 0.001, ([(shoulder, 0.033 * b), (elbow, 0.028 * b)], look.skin, None, light)))
        end = elbow if look.long_sleeves else shoulder + 0.6 * (elbow - shoulder)
        parts.append((depth, ([(shoulder, 0.041 * b), (end, 0.034 * b)], look.top, None, light)))
    return parts


def _facing(view: np.ndarray) -> np.ndarray:
    """Unit vector to where the head looks, from the ears' middle to between nose and eyes."""
    ahead = view[[body.R_EYE, body.L_EYE]].mean(0) - view[body.HEAD]
    return ahead / np.linalg.norm(ahead)


def _head(canvas: _Canvas, look: Look, view: np.ndarray) -> list:
    r = body.HEAD_RADIUS
    head, facing = view[body.HEAD], _facing(view)
    up = np.array([0.0, 1.0, 0.0])
    depth = max(head[2] + 0.02, view[body.SPINE, 2] + 0.01)  # before the neck
    skull = [(head + 0.18 * r * up, 0.98 * r), (head - 0.45 * r * up + 0.18 * r * facing, 0.72 * r)]
    parts = [(depth, (skull, look.skin))]
    for ear in (body.R_EAR, body.L_EAR):
        if view[ear, 2] - head[2] > -0.35 * r:
            parts.append((depth + 0.008, ([(view[ear], 0.2 * r)], look.skin, None, 0.9)))
    if facing[2] > -0.2:
        parts.append((depth + 0.006, lambda: _face(canvas, look, view, facing)))
    if look.haircut == "bald":
        return parts
    # the hair is a larger cap, pushed back and up, so that it frames a face and covers the back of a head
    back = head - 0.42 * r * facing + 0.34 * r * up
    cap = [(back, 0.98 * r), (head + 0.42 * r * up - 0.1 * r * facing, 0.92 * r)]
    parts.append((depth + (0.004 if facing[2] < 0.5 else 0.002), lambda: _hair(canvas, look, cap, head, facing)))
    if look.haircut == "long":
        nape = head - 1.7 * r * up - 0.45 * r * facing
        parts.append(
            (head[2] - 0.9 * r * facing[2] + 0.005, ([(back, 1.05 * r), (nape, 0.8 * r)], look.hair, None, 0.92))
        )
    if look.haircut == "bun":
        parts.append((depth - 0.5 * r * facing[2], ([(head - 0.9 * r * facing + 0.95 * r * up, 0.5 * r)], look.hair)))
    return parts


def _hair(canvas: _Canvas, look: Look, cap: list, head: np.ndarray, facing: np.ndarray) -> None:
    r, up = body.HEAD_RADIUS, np.array([0.0, 1.0, 0.0])
    canvas.part(cap, look.hair)
    if facing[2] > -0.45:  # the face again, over the hair's front; a narrow strip when it is turned away
        full = min(1.0, 0.78 + 0.6 * facing[2])
        middle = head - 0.2 * r * up + (0.95 - 0.57 * full) * r * facing
        canvas.part([(middle + 0.2 * r * up, 0.7 * r * full), (middle - 0.22 * r * up, 0.6 * r * full)], look.skin)
    if look.haircut == "cap":
        top = head + 0.5 * r * up
        canvas.part([(top - 0.15 * r * facing, 0.92 * r), (top + 0.1 * r * facing + 0.2 * r * up, 0.8 * r)], look.hat)
        if facing[2] > -0.45:
            brow = head + 0.35 * r * up
            visor = [(brow + 0.7 * r * facing, 0.3 * r), (brow + 1.3 * r * facing - 0.1 * r * up, 0.2 * r)]
            canvas.part(visor, look.hat, None, 0.8)


def _face(canvas: _Canvas, look: Look, view: np.ndarray, facing: np.ndarray) -> None:
    r, head = body.HEAD_RADIUS, view[body.HEAD]
    skin = np.float32(look.skin.first)
    for eye in (body.R_EYE, body.L_EYE):
        if view[eye, 2] - head[2] > -0.12 * r:
            canvas.dot(view[eye] + [0, 0.24 * r, 0], 0.05 * r, look.hair.first, 3.2)
            canvas.dot(view[eye], 0.11 * r, (34, 26, 24), 1.25)
    canvas.dot(view[body.NOSE], 0.13 * r, tuple(skin * 0.82))
    canvas.dot(view[body.NOSE] - [0.12 * r * facing[0], 0.42 * r, 0], 0.08 * r, tuple(skin * [0.85, 0.5, 0.5]), 2.4)


def _shadow(canvas: _Canvas, view: np.ndarray) -> None:
    feet = canvas.pixels(view[[body.R_ANKLE, body.L_ANKLE, body.R_TOE, body.L_TOE]])
    middle, reach = feet[:, 0].mean(), max(np.ptp(feet[:, 0]) / 2, 0.1 * canvas.scale) + 0.04 * canvas.scale
    ground = canvas.origin[1]
    box = (middle - reach, ground - 0.03 * canvas.scale, middle + reach, ground + 0.025 * canvas.scale)
    mask = Image.new("L", canvas.image.size)
    ImageDraw.Draw(mask).ellipse(box, fill=90)
    canvas.image.paste((20, 20, 24), (0, 0), mask)


def _stool(canvas: _Canvas, view: np.ndarray) -> None:
    (left, top), (right, _) = canvas.pixels(
        np.array([[-body.HIP_WIDTH - 0.06, 0, 0], [body.HIP_WIDTH + 0.06, 0, 0]])
        + (view[body.R_HIP] + view[body.L_HIP]) / 2
        - [0, 0.055, 0]
    )
    ground, thick = canvas.origin[1], 0.03 * canvas.scale
    pen = ImageDraw.Draw(canvas.image)
    for x in (left + thick, right - 2 * thick):
        pen.rectangle((x, top, x + thick, ground), fill=(84, 58, 38))
    pen.rectangle((left, top, right, top + 1.4 * thick), fill=(112, 78, 50))
