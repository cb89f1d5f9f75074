"""What the launcher reads from sbatch's own notations: of numbers of nodes, times, sizes of memory and GPUs.

Each function raises UserError, a line, for what it does not understand.
"""

import math
import re

from mscgan.errors import UserError


def node_counts(nodes: str, where: str = "--nodes") -> list[int]:
    """The numbers of nodes that a job may get, the least first: of 4, 2-4, 1-15:4 and 2,4, each with k for 1024."""
    found: set[int] = set()
    for part in nodes.split(","):
        match = re.fullmatch(r"(\d{1,6})(k?)(?:-(\d{1,6})(k?)(?::(\d{1,6}))?)?", part, re.ASCII | re.IGNORECASE)
        if match:
            least, most = int(match[1]) * (1024 if match[2] else 1), int(match[3] or match[1])
            most *= 1024 if match[4] or (match[2] and not match[3]) else 1
            found |= set(range(least, most + 1, max(1, int(match[5] or 1))))
        if not match or most < least or least < 1:
            raise UserError(f"{where} is {nodes!r}; expected a number above 0, or a range such as 2-4")
    return sorted(found)


def minutes(time: str, where: str = "--time") -> float:
    """SLURM's notations of a time: minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S; 0, UNLIMITED and INFINITE: no limit."""
    if time.upper() in ("0", "-1", "UNLIMITED", "INFINITE"):
        return math.inf
    if not re.fullmatch(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}", time, re.ASCII):
        raise UserError(f"{where} is {time!r}; expected minutes, H:MM:SS, D-HH:MM:SS, or UNLIMITED")
    days, dash, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if not dash and len(parts) < 3:
        parts = [0, *parts]  # minutes come first
    hours, mins, seconds = parts + [0] * (3 - len(parts))
    return max(1, int(days or 0) * 1440 + hours * 60 + mins + (seconds > 0))


def size(value: str, where: str) -> str:
    """SLURM takes whole numbers only: 60.5G is 61952M."""
    match = re.fullmatch(r"(\d+\.\d+)([KMGT])B?", value, re.ASCII | re.IGNORECASE)
    if not match:
        return value
    size, unit = float(match[1]), match[2].upper()
    if unit == "K" or size == int(size):
        return f"{math.ceil(size)}{unit}"
    return f"{math.ceil(size * 1024)}{'KMGT'['KMGT'.index(unit) - 1]}"


def gpus(value: str, where: str = "--gpus-per-node") -> int:
    """GPUs of a node: 8, a100:8, a100 (one), or several types a100:4,h100:4.

    Raises:
        UserError: another form.
    """
    found = [re.fullmatch(r"(\d{1,4})|[A-Za-z][\w.-]*(?::(\d{1,4}))?", part, re.ASCII) for part in value.split(",")]
    if not all(found):
        raise UserError(f"{where} is {value!r}; expected a number, TYPE:NUMBER such as a100:8, or auto")
    return sum(int(match[1] or match[2] or 1) for match in found if match)


def gpus_of_gres(gres: str, where: str = "--gres") -> int | None:
    """GPUs among the resources of a node, of gpu:8, gpu:a100:8, nvme:1,gpu; None where it names none."""
    found = [_gpu_part(part, where) for part in gres.split(",")]
    counts = [count for count in found if count is not None]
    return sum(counts) if counts else None


def _gpu_part(part: str, where: str = "--gres") -> int | None:
    name, *rest = part.removeprefix("gres/").removeprefix("gres:").split(":")
    return None if name != "gpu" else gpus(":".join(rest), f"{where} {part}: what follows gpu:") if rest else 1


def with_gpus(gres: str, count: int) -> str:
    """The resources with so many GPUs at most, of the first type that is named."""
    others = [part for part in gres.split(",") if _gpu_part(part) is None]
    asked = [part for part in gres.split(",") if _gpu_part(part) is not None]
    kind = re.sub(r":\d+$", "", asked[0]) if asked else "gpu"
    return ",".join(([f"{kind}:{count}"] if asked and count else []) + others)
