"""DALI's index of a WebDataset tar: where each member's bytes start and how long they are.

The text format is that of DALI's own `wds2idx`, version v1.2: a first line `v1.2 SAMPLES`, then a line per sample with
`extension offset size name` for each of its members.
"""

import tarfile
from collections.abc import Iterator
from pathlib import Path

VERSION = "v1.2"


def members(tar: Path) -> Iterator[tarfile.TarInfo]:
    """The members of an uncompressed tar in order, read from the headers alone; nothing is extracted.

    Raises:
        tarfile.TarError, EOFError: the tar is damaged or cut short.
        ValueError: a member is not a plain file.
    """
    with tarfile.open(tar, "r:") as archive:
        for member in archive:
            if not member.isreg():
                raise ValueError(f"member {member.name!r} is not a plain file")
            yield member


def index_text(tar: Path) -> str:
    """The index file's text for `tar`; errors as `members`."""
    samples: dict[str, list[str]] = {}
    for member in members(tar):
        key, _, extension = member.name.partition(".")
        samples.setdefault(key, []).append(f"{extension} {member.offset_data} {member.size} {member.name}")
    return "\n".join([f"{VERSION} {len(samples)}", *(" ".join(parts) for parts in samples.values())]) + "\n"
