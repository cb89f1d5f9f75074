"""Reads the field's keypoint files, `name:keypoints_y:keypoints_x`, each list 18 numbers in JSON, -1 where missing; and
its pair lists, `from,to`."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

from mscgan import files
from mscgan.errors import UserError

LARGEST = 1 << 30  # bytes of a list; DeepFashion's longest has 16 MB
HEADER = "name:keypoints_y:keypoints_x"
_BEFORE_LIST = re.compile(r":(?=\s*\[)")  # a name may have colons
NEEDED = {8: "right hip", 11: "left hip", 5: "left shoulder", 2: "right shoulder"}  # pose-gan's filter


@dataclass(frozen=True)
class Annotation:
    """keypoints: 18 [x, y] in pixels, [-1, -1] where missing."""

    name: str
    keypoints: list

    @property
    def usable(self) -> bool:
        """Hips and shoulders are all there."""
        return all(self.keypoints[joint] != [-1, -1] for joint in NEEDED)


def read(path: Path, height: int, width: int) -> list[Annotation]:
    """The rows of a keypoint file of height x width pictures, in order.

    Raises:
        UserError: no such file, a broken line, a wrong number of keypoints, one outside the picture, a name twice.
    """
    rows = numbered(path)
    check_inside(path, rows, height, width)
    return [row for _, row in rows]


def numbered(path: Path) -> list[tuple[int, Annotation]]:
    """(line number, row) of a keypoint file, in order; that the joints lie in their pictures is not looked at.

    Raises:
        UserError: no such file, a broken line, a wrong number of keypoints, a name twice.
    """
    lines = text_lines(path)
    if not lines or lines[0].replace(" ", "") != HEADER:
        raise UserError(f"{path} line 1: {lines[0][:60] if lines else ''!r}; a keypoint file begins with {HEADER}")
    first_line: dict[str, int] = {}
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        try:
            row = _row(line)
        except ValueError as error:
            raise UserError(f"{path} line {number}: {error}") from error
        if row.name in first_line:
            raise UserError(f"{path} line {number}: {row.name} is also on line {first_line[row.name]}; remove one")
        first_line[row.name] = number
        rows.append((number, row))
    return rows


def check_inside(path: Path, rows: list[tuple[int, Annotation]], height: int, width: int) -> None:
    """UserError where a joint of a file's (line number, row) lies outside a height x width picture."""
    for number, row in rows:
        if why := outside(row.keypoints, height, width):
            raise UserError(f"{path} line {number}: {why}")


def outside(keypoints: list, height: int, width: int) -> str:
    """Which joint lies outside a height x width picture, and what to do; "" where none does."""
    for joint, (x, y) in enumerate(keypoints):
        if (x, y) != (-1, -1) and not (0 <= x <= width - 1 and 0 <= y <= height - 1):
            return (
                f"keypoint {joint} at x {x}, y {y} is outside a {height}x{width} (height x width) picture; is the file "
                "of pictures of that size? A joint that is not in the picture is -1 in both lists"
            )
    return ""


def text(rows: list[Annotation]) -> str:
    """A keypoint file of the rows."""
    lines = [f"{row.name}: {[y for _, y in row.keypoints]}: {[x for x, _ in row.keypoints]}\n" for row in rows]
    return f"{HEADER}\n{''.join(lines)}"


def read_list(path: Path) -> list[tuple[int, str, str]]:
    """(line number, source name, target name) for each row of a from,to list.

    Raises:
        UserError: no such file, or a broken line.
    """
    lines = text_lines(path)
    if not lines or lines[0].replace(" ", "") != "from,to":
        raise UserError(f"{path} line 1: {lines[0][:60] if lines else ''!r}; a pair list begins with from,to")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        names = [name.strip() for name in line.split(",")]
        if len(names) == 2 and all(names):
            rows.append((number, names[0], names[1]))
        elif line.strip():
            raise UserError(f"{path} line {number}: {line[:60]!r}; expected two names, from,to")
    if not rows:
        raise UserError(f"{path} has no pairs; expected a line from,to for each")
    return rows


def text_lines(path: Path) -> list[str]:
    """A text file's lines; UserError where it cannot be read."""
    return whole_text(path).splitlines()


def whole_text(path: Path) -> str:
    """A text file; UserError where it cannot be read."""
    try:
        return files.read(path, LARGEST).decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file in UTF-8 (byte {error.start}); save it again as UTF-8") from error


def _row(line: str) -> Annotation:
    fields = _BEFORE_LIST.split(line)
    if len(fields) != 3 or not fields[0].strip():
        raise ValueError(f"{len(fields)} fields between colons; expected {HEADER}")
    ys, xs = (_numbers(text, title) for text, title in zip(fields[1:], HEADER.split(":")[1:], strict=True))
    return Annotation(fields[0].strip(), [[x, y] for x, y in zip(xs, ys, strict=True)])


def _numbers(text: str, title: str) -> list:
    try:
        values = json.loads(text)
        numbers = isinstance(values, list) and all(type(v) in (int, float) and math.isfinite(v) for v in values)
    except (ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{title} is not a list of numbers: {text.strip()[:40]!r}") from error
    if not numbers:
        raise ValueError(f"{title} is not a list of numbers: {text.strip()[:40]!r}")
    if len(values) != 18:
        raise ValueError(f"{title} has {len(values)} numbers; expected 18")
    return values
